"""Judging what lies in a cache, and removing it."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from align_cache.errors import CacheError, CorruptError
from align_cache.files import TEMPORARY_SUFFIX, is_plain_file
from align_cache.lock import holding, refusing_unwritable
from align_cache.store.catalog import set_folders
from align_cache.store.entry import open_entry
from align_cache.store.layout import MANIFEST_NAME, PROVENANCE_NAME, feature_set_folder
from align_cache.store.manifest import Manifest, read_manifest
from align_cache.store.provenance import read_provenance
from align_cache.store.reader import FeatureSet
from align_cache.store.shard import open_shard

Kind: TypeAlias = Literal["damage", "leftover"]

_SET_FOLDER = re.compile(r".+-[0-9a-f]{8}")
_SHARD = re.compile(r"shard-[0-9]{5,}\.h5")


@dataclass(frozen=True)
class Finding:
    """One thing in a cache that is not as it should be."""

    path: Path
    problem: str
    """What is wrong with it, to be read after its path."""
    kind: Kind
    """``damage``: a file that is not as it was published. ``leftover``: unfinished, stale or unknown."""
    hint: str | None = None
    """What mends it; None: the command that made it makes it again."""


def verify(path: Path, *, contents: bool = True) -> list[Finding]:
    """Check every byte of one feature set or of a whole cache; damage is listed, never raised.

    Parameters
    ----------
    path : Path
        A cache folder, or the folder of one feature set.
    contents : bool
        Whether to read the rows and hold them against their checksums. Manifests, sizes and the structure of
        every file are always checked.

    Returns
    -------
    list of Finding, empty if all is well

    Raises
    ------
    CacheError
        If there is no such folder.
    """
    if not path.is_dir():
        raise CacheError(f"{path} is no folder")
    folders = [path] if _looks_like_set(path) else set_folders(path)
    return [finding for folder in folders for finding in _check_set(folder, contents)]


def remove(folder: Path) -> None:
    """Remove one feature set, finished or not, and nothing else.

    Raises
    ------
    BusyError
        If a process is writing it.
    CacheError
        If the folder is not a feature set, or holds anything that align-cache did not write.
    """
    if folder.is_symlink() or not folder.is_dir() or not _SET_FOLDER.fullmatch(folder.name):
        raise CacheError(f"{folder} is not the folder of a feature set")
    with holding(folder), refusing_unwritable(folder):
        strange = [path.name for path in sorted(folder.iterdir()) if not _is_ours(path)]
        if strange:
            raise CacheError(f"{folder} holds {', '.join(strange[:5])}, which align-cache did not write")
        (folder / MANIFEST_NAME).unlink(missing_ok=True)  # first: what is half removed is unfinished
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
    with suppress(OSError):
        folder.parent.rmdir()  # the dataset's folder, if this was its last set


def _check_set(folder: Path, contents: bool) -> Iterator[Finding]:
    yield from _leftovers(folder)
    manifest = None
    try:
        manifest = read_manifest(folder)
        expected = feature_set_folder(Path(), manifest.identity)
        if folder.name != expected.name:
            yield Finding(folder, f"is named for another set, expected {expected.name}", "damage")
    except CacheError as error:
        path = folder / MANIFEST_NAME
        there = path.exists() or path.is_symlink()
        yield _finding(path, error) if there else _finding(folder, error, "leftover")
    if manifest is None:
        yield from _check_unfinished(folder, contents)
    else:
        yield from _check_shards(folder, manifest, contents)


def _check_shards(folder: Path, manifest: Manifest, contents: bool) -> Iterator[Finding]:
    whole = True
    try:
        read_provenance(folder, key=manifest.key)
    except CorruptError as error:
        yield _finding(folder / PROVENANCE_NAME, error)
    for index, entry in enumerate(manifest.shards):
        try:
            open_entry(folder, manifest, index, verify=contents)
        except CacheError as error:
            whole = False
            yield _finding(folder / entry.file, error)
    if whole and contents:
        yield from _check_content(folder)
    known = {entry.file for entry in manifest.shards}
    for path in sorted(folder.glob("shard-*.h5")):
        if path.name not in known and _SHARD.fullmatch(path.name):
            yield Finding(path, "is no shard of this set", "leftover")


def _check_content(folder: Path) -> Iterator[Finding]:
    """Read what opening leaves for later: every string of every row."""
    try:
        features = FeatureSet.open(folder, verify=False)
        for column in ("sample_ids", "group_ids", "splits", "texts"):
            getattr(features, column)
    except CacheError as error:
        yield _finding(folder, error)


def _check_unfinished(folder: Path, contents: bool) -> Iterator[Finding]:
    for path in sorted(folder.glob("shard-*.h5")):
        try:
            open_shard(path, verify=contents)
        except CacheError as error:
            yield _finding(path, error)


def _finding(path: Path, error: CacheError, kind: Kind = "damage") -> Finding:
    hint = None if isinstance(error, CorruptError) else error.hint
    return Finding(path, error.message.removeprefix(str(path)).lstrip(": "), kind, hint)


def _leftovers(folder: Path) -> Iterator[Finding]:
    for path in sorted(folder.iterdir()):
        if _is_temporary(path):
            yield Finding(path, "is half-written; the next extract removes it", "leftover")
        elif not _is_ours(path):
            yield Finding(path, "is not of align-cache", "leftover")


def _looks_like_set(path: Path) -> bool:
    return bool(_SET_FOLDER.fullmatch(path.name)) and not (path / "features").is_dir()


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX)


def _is_ours(path: Path) -> bool:
    """Say whether a name is one that the writer gives; a damaged file still counts, a folder does not."""
    named = path.name in (MANIFEST_NAME, PROVENANCE_NAME) or bool(_SHARD.fullmatch(path.name))
    return (named or _is_temporary(path)) and (is_plain_file(path) or path.is_symlink())
