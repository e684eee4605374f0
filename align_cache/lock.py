"""Who may write a feature set or a run: one process alone, or several that share the work; and who it is."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from align_cache.errors import BusyError, CacheError

_PATIENCE_S = 30.0
"""How long one that would share a folder waits for one that holds it alone, as whoever publishes does."""
_RETRY_S = 0.1


@contextmanager
def holding(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder, a feature set or a run; the lock dies with the process, however it dies.

    The lock file stays: removing it would let two processes hold "the" lock. Who holds it, or was the last
    to share it, stands in a file of its own.

    Parameters
    ----------
    folder : Path
    shared : bool
        With others that hold it so too, instead of alone.

    Raises
    ------
    BusyError
        If another process holds it, naming its pid and host: at once, or to share it after half a minute.
    CacheError
        If nothing can be written there.
    """
    holder_path = folder.with_name(f"{folder.name}.holder")
    with refusing_unwritable(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder.with_name(f"{folder.name}.lock"), shared=shared)
    if lock is None:
        raise BusyError(
            f"{folder} is held by another process ({_holder(holder_path)})",
            hint="wait for it to end; the same command then continues where it stands",
        )
    try:
        with suppress(OSError):  # a courtesy: a full disk must not keep a set from being removed
            holder_path.write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        if not shared:
            with suppress(OSError):
                holder_path.unlink()
        os.close(lock)


def holder_of(folder: Path) -> str | None:
    """Say who holds a folder now, alone or with others; None: nobody. It waits for nothing and makes no file.

    The lock itself is asked only where a holder is named: asking takes it for an instant.
    """
    named = folder.with_name(f"{folder.name}.holder")
    if not named.exists():
        return None
    try:
        lock = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(named)
    finally:
        os.close(lock)
    return None  # the name was left by one that was killed, or that was the last to share


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


def _acquire(path: Path, *, shared: bool) -> int | None:
    """Return the open lock file that holds the lock until it is closed; None if another process has it."""
    end = time.monotonic() + (_PATIENCE_S if shared else 0)
    while (lock := _try(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)) is None:
        if time.monotonic() >= end:
            return None
        time.sleep(_RETRY_S)
    return lock


def _try(path: Path, kind: int) -> int | None:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                return None
            raise
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)  # removed with its set between the opening and the locking: the next has another file


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:200]
    except (OSError, UnicodeDecodeError):
        return "unknown"
