"""The terminal: two consoles and one progress bar.

Data goes to stdout, progress and notes to stderr. rich is imported where it is used, so that
``align-cache --help`` does not wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from align_cache.progress import Bar
from align_cache.reporting.wording import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task, TaskID
    from rich.text import Text

PLAIN_LINE_EVERY_S = 10.0
UNBOUNDED_WIDTH = 160


@cache
def stdout() -> Console:
    """Return the console for data; colour only where it is a terminal and ``NO_COLOR`` is unset.

    A file or a pipe has no width that a table would have to be squeezed into.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=UNBOUNDED_WIDTH)


@cache
def stderr() -> Console:
    """Return the console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


class SettableBar(Bar, Protocol):
    """What :func:`progress` gives: it can also be set."""

    def update(self, done: int, total: int) -> None:
        """Set what is done and what there is to do."""


@contextmanager
def progress(total: int | None, description: str, unit: str = "items") -> Iterator[SettableBar]:
    """Show a bar with count, rate and time left on stderr while the block runs.

    Where stderr is no terminal (a log file, a pipe) a plain line is written every ten seconds instead, so
    that work which takes less says nothing.

    Parameters
    ----------
    total : int or None
        How many units there are; None until :meth:`Bar.update` says so.
    description : str
        What is being done, a few words.
    unit : str
        What is counted, in the plural: ``images`` gives ``123 images/s``.

    Yields
    ------
    SettableBar
        ``advance(count)`` adds, ``update(done, total)`` sets; both are cheap to call often.
    """
    if not stderr().is_terminal:
        yield _PlainBar(total, description, unit)
        return
    bar = _rich_progress(unit)
    with bar:
        yield _RichBar(bar, bar.add_task(description, total=total))


class _RichBar:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, count: int = 1) -> None:
        self._bar.advance(self._task, count)

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)


class _PlainBar:
    def __init__(self, total: int | None, description: str, unit: str) -> None:
        self._total, self._description, self._unit = total, description, unit
        self._done = 0
        self._started = self._said = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        self._say()

    def update(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._say()

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said < PLAIN_LINE_EVERY_S:
            return
        self._said = now
        rate = self._done / (now - self._started)
        left = "" if self._total is None or not rate else duration((self._total - self._done) / rate)
        parts = [
            f"{_count(self._done, self._total)} {self._unit}",
            _rate(rate, self._unit),
            left and f"{left} left",
        ]
        line = f"{self._description}: {', '.join(part for part in parts if part)}"
        stderr().print(line, markup=False, soft_wrap=True)


def _rich_progress(unit: str) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        _column(lambda task: _count(int(task.completed), None if task.total is None else int(task.total))),
        _column(lambda task: _rate(task.finished_speed or task.speed, unit)),
        _column(_time_left),
        console=stderr(),
    )


def _column(text_of: Any) -> ProgressColumn:
    """Make a progress column of a function from the task to a string."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Column(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(text_of(task), style="dim", justify="right")

    return Column()


def _time_left(task: Task) -> str:
    if task.finished:
        return duration(task.finished_time or 0.0)
    return "" if task.time_remaining is None else f"{duration(task.time_remaining)} left"


def _count(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,}/{total:,}"


def _rate(per_second: float | None, unit: str) -> str:
    if not per_second:
        return ""
    return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{per_second:.2g} {unit}/s"
