"""What is slow to make for a run is made once, however many requests ask for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from align_cache.results import Run

T = TypeVar("T")

RUNS = 4
"""Runs whose answers are kept: those that somebody goes back and forth between."""


class Kept(Generic[T]):
    """A function of a run that remembers the runs it was asked about last.

    An error is not remembered: what was missing may be there the next time.

    Parameters
    ----------
    make : callable (run) -> answer
    of_checkpoint : bool
        Whether a run that has a new checkpoint since is a new question.
    """

    def __init__(self, make: Callable[[Run], T], *, of_checkpoint: bool = True) -> None:
        self._make, self._of_checkpoint = make, of_checkpoint
        self._answers: OrderedDict[tuple[Run, int], T] = OrderedDict()
        self._lock = Lock()

    def __call__(self, run: Run) -> T:
        """Return the answer for a run; one thread makes it, the others wait."""
        key = run, _last_checkpoint(run) if self._of_checkpoint else 0
        with self._lock:
            if key not in self._answers:
                self._answers[key] = self._make(run)
            self._answers.move_to_end(key)
            while len(self._answers) > RUNS:
                self._answers.popitem(last=False)
            return self._answers[key]


def _last_checkpoint(run: Run) -> int:
    """Return when the folder of checkpoints last changed, in ns; 0 where there is none."""
    try:
        return run.checkpoints.stat().st_mtime_ns
    except OSError:
        return 0
