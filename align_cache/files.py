"""Publishing a file so that it is whole or not there, and knowing its bytes again.

Everything the project writes goes through :func:`publishing`: a temporary file beside the target,
flushed to the disk, renamed over it, and the folder flushed too. A reader never sees half a file,
and a kill at any moment leaves the previous one.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from align_cache.errors import CacheError

TEMPORARY_SUFFIX = ".tmp"
_BLOCK_BYTES = 1 << 22


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a temporary path; on a clean exit, flush it and rename it to ``path``.

    Raises
    ------
    CacheError
        If ``path`` exists and is anything but a regular file.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise CacheError(f"{path} is not a regular file: refusing to publish over it")
    temporary = _beside(path)
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def publishing_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder; on a clean exit, flush all that is in it and rename it to ``path``.

    Parameters
    ----------
    path : Path
        Does not exist, or is an empty folder, or is replaced as a whole; its parent is made.
    replace : bool
        Whether a folder that is there goes. It is moved aside first, under a temporary name, so that a kill
        between the two renames leaves it there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for inner in [*temporary.rglob("*"), temporary]:
            fsync(inner)
        if replace and path.exists():
            _put_in_place_of(path, temporary)
        else:
            temporary.replace(path)
        fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place_of(path: Path, new: Path) -> None:
    aside = _beside(path)
    path.replace(aside)
    try:
        new.replace(path)
    except OSError:
        aside.replace(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")


def publish_bytes(path: Path, data: bytes) -> None:
    """Publish ``data`` as the whole content of ``path``."""
    with publishing(path) as temporary, temporary.open("xb") as file:
        file.write(data)


def publish_text(path: Path, text: str) -> None:
    """Publish ``text`` as UTF-8."""
    publish_bytes(path, text.encode("utf-8"))


def fsync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(path: Path) -> str:
    """xxh3-128 of a file's bytes, in hex. It finds damage; it is no defence against forgery."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_plain_file(path: Path) -> bool:
    """Say whether ``path`` is a regular file and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def sweep_temporaries(folder: Path) -> int:
    """Remove what a killed process left half-written; call only while holding the folder's lock."""
    stale = [path for path in folder.glob(f".*{TEMPORARY_SUFFIX}") if is_plain_file(path)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)
