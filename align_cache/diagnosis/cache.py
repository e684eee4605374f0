"""How a cache stands: its feature sets, what is written there now, and the disk below it."""

import os
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from align_cache.diagnosis.problems import Problem
from align_cache.errors import CacheError
from align_cache.lock import holder_of
from align_cache.progress import Progress
from align_cache.store import find
from align_cache.store.catalog import StoredSet, set_folders
from align_cache.store.layout import MANIFEST_NAME
from align_cache.store.verify import Finding, verify

_LITTLE_BYTES = 1_000_000_000
"""Free space below which the next extraction may well fill the disk."""
_HOLDERS = ("features/*/*", "runs/*/training", "sweeps/*/sweep", "studies/*/study")
_SHOWN_FINDINGS = 3
_ANOTHER = "choose another folder with --cache-dir or ALIGN_CACHE_DIR"


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache folder and its feature sets."""

    folder: Path
    exists: bool
    writable: bool
    """Whether this process may write there, or make the folder."""
    free_bytes: int
    """Of the disk that it lies on."""
    sets: int
    """Finished feature sets whose manifest can be read."""
    set_bytes: int
    unfinished: int
    """Folders of sets without a manifest."""
    held: tuple[str, ...]
    """What processes are writing now, and which: ``features/flickr8k/dinov2-1a2b3c4d: pid 12 on node7``."""


def look_at_cache(cache_dir: Path, *, deep: bool, progress: Progress) -> tuple[Cache, tuple[Problem, ...]]:
    """Look at a cache and its feature sets.

    Parameters
    ----------
    cache_dir : Path
    deep : bool
        Whether to read every byte; otherwise manifests, sizes and the structure of every file.
    progress : callable
        Makes the bar over the feature sets.

    Raises
    ------
    CacheError
        If it is no folder.
    """
    if cache_dir.exists() and not cache_dir.is_dir():
        raise CacheError(f"{cache_dir} is a file, expected a folder", hint=_ANOTHER)
    stored = find(cache_dir)
    held = dict(_held(cache_dir))
    findings = _findings(set_folders(cache_dir), deep=deep, progress=progress)
    ground = _existing(cache_dir)
    cache = Cache(
        folder=cache_dir,
        exists=cache_dir.is_dir(),
        writable=os.access(ground, os.W_OK),
        free_bytes=shutil.disk_usage(ground).free,
        sets=len(stored),
        set_bytes=sum(shard.bytes for each in stored for shard in each.manifest.shards),
        unfinished=sum(not (folder / MANIFEST_NAME).exists() for folder in set_folders(cache_dir)),
        held=tuple(f"{folder.relative_to(cache_dir)}: {holder}" for folder, holder in held.items()),
    )
    finished = {each.folder: each for each in stored}
    problems = [*_disk_problems(cache)]
    for folder, found in findings.items():
        problems += _set_problems(
            folder, found, finished.get(folder), held=folder in held, cache_dir=cache_dir
        )
    return cache, tuple(problems)


def cache_option(cache_dir: Path) -> str:
    """Return the option that names a cache in a command; empty for the one that commands take anyway."""
    named = os.environ.get("ALIGN_CACHE_DIR", "cache")
    return "" if cache_dir == Path(named) else f" --cache-dir {shlex.quote(str(cache_dir))}"


def _findings(folders: Sequence[Path], *, deep: bool, progress: Progress) -> dict[Path, list[Finding]]:
    found = {}
    with progress(len(folders), "checking every byte" if deep else "checking sizes", "feature sets") as bar:
        for folder in folders:
            found[folder] = verify(folder, contents=deep)
            bar.advance()
    return found


def _held(cache_dir: Path) -> Iterator[tuple[Path, str]]:
    for pattern in _HOLDERS:
        for named in sorted(cache_dir.glob(f"{pattern}.holder")):
            folder = named.with_suffix("")
            if (holder := holder_of(folder)) is not None:
                yield folder, holder


def _disk_problems(cache: Cache) -> Iterator[Problem]:
    if not cache.writable:
        yield Problem(
            f"{cache.folder} cannot be written to",
            f"allow it, or {_ANOTHER}",
            broken=cache.exists,
        )
    if cache.free_bytes < _LITTLE_BYTES:
        yield Problem(
            f"{cache.free_bytes / 1e6:,.0f} MB are free on the disk of {cache.folder}",
            "free space there (align-cache cache ls, cache rm), or move the cache with ALIGN_CACHE_DIR",
            broken=False,
        )


def _set_problems(
    folder: Path, findings: Sequence[Finding], stored: StoredSet | None, *, held: bool, cache_dir: Path
) -> Iterator[Problem]:
    """Give one problem for what is damaged in a feature set, and one for what is left over in it."""
    by_kind = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    name = f"{folder.parent.name}/{folder.name}"
    remove = f"align-cache cache rm {shlex.quote(name)}{cache_option(cache_dir)}"
    if damage := by_kind["damage"]:
        again = f"{_made_by(folder, stored)}{cache_option(cache_dir)}"
        mend = f"{again}, with the options it was made with, makes what is damaged anew; or: {remove}"
        mend = next((finding.hint for finding in damage if finding.hint), mend)
        yield Problem(f"{name} is damaged: {_told(folder, damage)}", mend, broken=True)
    if (left := by_kind["leftover"]) and not held:  # of a set that is being written it is as it should be
        mend = f"the extract command that was stopped goes on with it; or: {remove}"
        yield Problem(f"{name} holds what is left over: {_told(folder, left)}", mend, broken=False)


def _made_by(folder: Path, stored: StoredSet | None) -> str:
    """Return the head of the command that made a set, as far as what is left of it tells."""
    if stored is None:
        return f"align-cache extract --dataset {shlex.quote(folder.parent.name)}"
    from align_cache.extraction.origin import recorded_origin

    manifest = stored.manifest
    dataset, encoder = ["--dataset", manifest.dataset], ["--encoder", manifest.encoder]
    if "imported" in manifest.identity["encoder"]:
        words = ["import", "FILE", "--modality", manifest.modality, *dataset, *encoder]
    else:
        origin = recorded_origin(stored)
        words = ["extract", *(dataset if origin is None else origin.flags(manifest.dataset)), *encoder]
    return f"align-cache {shlex.join(words)}"


def _told(folder: Path, findings: Sequence[Finding]) -> str:
    shown = [
        finding.problem if finding.path == folder else f"{finding.path.name} {finding.problem}"
        for finding in findings[:_SHOWN_FINDINGS]
    ]
    more = len(findings) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _existing(path: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())
