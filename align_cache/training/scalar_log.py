"""What training logs, as scalars for TensorBoard: a second copy of ``records.jsonl``, never the only one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_cache.results import Record
from align_cache.runtime import require_extra

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_PLACES = ("kind", "epoch", "step")
"""What says where a number belongs, and is none itself."""


def require_tensorboard(*, wanted: bool) -> None:
    """Refuse, before any work is done, to log for a TensorBoard that is not installed.

    Raises
    ------
    UsageError
    """
    if wanted:
        require_extra("tensorboard", extra="tensorboard", needed_for="log.tensorboard")


class ScalarLog:
    """Event files of one run.

    It is opened by the first record. What is there from before, some of it of epochs that a resumed run
    trains again, then gives way to all that the run has logged.

    Parameters
    ----------
    folder : Path
        Of the event files; made when it is opened.
    logged : callable
        Gives the records of the run so far, the one that is being written among them.
    """

    def __init__(self, folder: Path, logged: Callable[[], Sequence[Record]]) -> None:
        self._folder, self._logged = folder, logged
        self._writer: SummaryWriter | None = None

    def write(self, record: Record) -> None:
        """Write a record that was just logged."""
        if self._writer is not None:
            _add(self._writer, record)
        else:
            self._writer = self._open()
            for earlier in self._logged():
                _add(self._writer, earlier)
        if record["kind"] != "step":
            self._writer.flush()

    def close(self) -> None:
        """Write what is buffered and end the writing thread."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        for stale in self._folder.glob("events.out.tfevents.*"):
            stale.unlink()
        return SummaryWriter(str(self._folder))


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """Yield every number of a record with its tag, for example ``epoch/val/loss``; what is None has none."""
    for key, value in record.items():
        if key not in _PLACES:
            yield from _numbers(f"{record['kind']}/{key}", value)


def _numbers(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{tag}/{key}", inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield tag, float(value)


def _add(writer: SummaryWriter, record: Record) -> None:
    """Add a record's numbers at its step, or at its epoch where it has none."""
    for tag, value in scalars(record):
        writer.add_scalar(tag, value, record.get("step", record["epoch"]))
