"""One writer at a time for a feature set or a run, and who it is."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from align_cache.errors import BusyError, CacheError


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold a folder exclusively, a feature set or a run; the lock dies with the process, however it dies.

    The lock file stays (removing it would let two processes hold "the" lock); who holds it stands in a
    file of its own, because some versions of ``filelock`` empty the lock file on every attempt.

    Raises
    ------
    BusyError
        At once, if another process holds it; names its pid and host.
    CacheError
        If nothing can be written there.
    """
    lock_path = folder.with_name(f"{folder.name}.lock")
    holder_path = folder.with_name(f"{folder.name}.holder")
    lock = FileLock(lock_path, thread_local=False)
    with refusing_unwritable(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise BusyError(
                f"{folder} is held by another process ({_holder(holder_path)})",
                hint="wait for it to end; the same command then continues where it stands",
            ) from error
    try:
        with suppress(OSError):  # a courtesy: a full disk must not keep a set from being removed
            holder_path.write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            holder_path.unlink()
        lock.release()


@contextmanager
def refusing_unwritable(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below ``folder`` into one line."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cannot write below {folder}: {error.strerror or error}",
            hint="free space there, or choose another folder with --cache-dir; the same command then resumes",
        ) from error


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:200]
    except (OSError, UnicodeDecodeError):
        return "unknown"
