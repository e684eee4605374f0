"""The terminal: two consoles, one progress bar, and records shown as tables.

Data goes to stdout, progress and notes to stderr. rich is imported where it is used, so that
``align-cache --help`` does not wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from align_cache.progress import Bar
from align_cache.reporting.evaluation_tables import evaluation_tables
from align_cache.reporting.leaderboard import leaderboard_table
from align_cache.reporting.run_table import run_table
from align_cache.reporting.tables import Table
from align_cache.reporting.wording import duration

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.progress import Progress, ProgressColumn, Task, TaskID
    from rich.table import Table as RichTable
    from rich.text import Text

    from align_cache.comparison import Comparison
    from align_cache.study_results import Study
    from align_cache.sweep_records import RankBy, TrialRecord
    from align_cache.sweeping import Standing

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


def evaluation_table(record: Mapping[str, Any]) -> Group:
    """Render an evaluation record (a line of ``results.jsonl``) for the terminal.

    Parameters
    ----------
    record : mapping
        ``{"kind": "evaluation", …}`` as :func:`align_cache.evaluation` returns it; any part may be None.

    Returns
    -------
    rich.console.Group
        Retrieval, alignment, null, hypotheses, distribution and probe, each with its N, k and intervals.
    """
    from rich.console import Group
    from rich.text import Text

    warnings = [Text(line, style="bold red") for line in _untrained_lines(record)]
    tables = [_rich_table(table) for table in evaluation_tables(record)]
    notes = [Text(f"note: {note}", style="dim") for note in record.get("notes") or ()]
    return Group(*warnings, *tables, *notes)


def run_summary(run: Mapping[str, Any]) -> Group:
    """Render a run record (``run.json``) for the terminal: what was trained on what."""
    from rich.console import Group
    from rich.text import Text

    warnings = [Text(line, style="bold red") for line in _untrained_lines(run)]
    return Group(*warnings, _rich_table(run_table(run)))


def comparison_table(comparison: Comparison) -> Group:
    """Render a comparison of runs for the terminal: groups, numbers, differences, what was left out."""
    from rich.console import Group
    from rich.text import Text

    from align_cache.reporting.comparison import comparison_tables

    warnings = [
        Text(line, style="bold red") for line in _untrained_lines({"untrained": comparison.untrained})
    ]
    return Group(*warnings, *(_rich_table(table) for table in comparison_tables(comparison)))


def tables_group(
    tables: Sequence[Table], *, untrained: Sequence[str] = (), notes: Sequence[str] = ()
) -> Group:
    """Render tables for the terminal, what has to be known of them above and below."""
    from rich.console import Group
    from rich.text import Text

    warnings = [Text(line, style="bold red") for line in _untrained_lines({"untrained": untrained})]
    said = [Text(f"note: {note}", style="dim") for note in notes]
    return Group(*warnings, *map(_rich_table, tables), *said)


def pairs_table(record: Mapping[str, Any]) -> Group:
    """Render what was measured of the pairs that were drawn, for the terminal."""
    from rich.console import Group
    from rich.text import Text

    from align_cache.reporting.pairs_table import pairs_table as table_of

    warnings = [Text(line, style="bold red") for line in _untrained_lines(record)]
    return Group(*warnings, _rich_table(table_of(record)))


def runs_table(entries: Sequence[Mapping[str, Any]]) -> RichTable:
    """Render the runs of a cache for the terminal, one a line."""
    from align_cache.reporting.run_list import list_table

    table = _rich_table(list_table(entries))
    table.columns[0].no_wrap = True  # an id has to be copied whole
    return table


@contextmanager
def live_leaderboard(rank_by: RankBy) -> Iterator[Callable[[Sequence[TrialRecord], int], None]]:
    """Keep the best ten trials of a sweep on stderr; where that is no terminal, a line as each one ends.

    Yields
    ------
    callable (trials that ended, trials in all)
    """
    from rich.live import Live

    if stderr().is_terminal:
        with Live(console=stderr(), auto_refresh=False) as screen:
            yield lambda ended, total: screen.update(
                _rich_table(leaderboard_table(ended, rank_by, n_trials=total, limit=10)), refresh=True
            )
        return
    told: set[str] = set()

    def tell(ended: Sequence[TrialRecord], total: int) -> None:
        for trial in ended:
            if trial.key not in told:
                told.add(trial.key)
                score = f"{rank_by} {trial.scores[rank_by]:.4f}" if trial.scores else f"failed: {trial.error}"
                values = ", ".join(f"{key} {value}" for key, value in trial.values.items())
                stderr().print(
                    f"{len(told)}/{total}  {score}  {trial.duration_s:.1f} s  {values}", soft_wrap=True
                )

    yield tell


@contextmanager
def live_study() -> Iterator[tuple[Callable[[Standing], None], Callable[[int, int], None]]]:
    """Show the leaderboard while a study trains, and then a bar while it judges.

    Yields
    ------
    callable (where the sweep stands), and callable (runs judged, runs in all)
    """
    with ExitStack() as screen:
        show = screen.enter_context(live_leaderboard("mean_recall"))
        bar: SettableBar | None = None

        def on_judged(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                screen.close()  # the leaderboard: a terminal has room for one live display
                bar = screen.enter_context(progress(total, "judging", "runs"))
            bar.update(done, total)

        yield lambda standing: show(standing.ended, standing.n_trials), on_judged


def sweep_table(trials: Sequence[TrialRecord], rank_by: RankBy) -> RichTable:
    """Render every trial of a sweep for the terminal, the best first."""
    table = _rich_table(leaderboard_table(trials, rank_by))
    table.columns[1].no_wrap = True  # an id has to be copied whole
    return table


def study_tables(study: Study) -> Group:
    """Render a study for the terminal: what holds over all conditions, its first metric, and the findings."""
    from rich.console import Group
    from rich.text import Text

    from align_cache.reporting.study_tables import metric_table, overall_table
    from align_cache.reporting.study_words import findings

    warnings = [Text(line, style="bold red") for line in _untrained_lines({"untrained": study.untrained})]
    tables = (overall_table(study), metric_table(study, study.metrics[0]))
    said = (Text(f"{finding}\n") for finding in findings(study))
    return Group(*warnings, *map(_rich_table, tables), *said)


def _untrained_lines(record: Mapping[str, Any]) -> list[str]:
    names = record.get("untrained") or ()
    return (
        [f"UNTRAINED encoders: {', '.join(names)}: the numbers say nothing about real models"]
        if names
        else []
    )


def _rich_table(table: Table) -> RichTable:
    """Lay out one table; cells are plain text, never markup."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=Text(table.title, style="bold"),
        caption=Text(table.note, style="dim") if table.note else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        collapse_padding=True,
        show_header=any(table.columns),
    )
    for index, column in enumerate(table.columns):
        shown.add_column(
            Text(column), justify="left" if index < table.label_columns else "right", overflow="fold"
        )
    for row in table.shown():
        shown.add_row(*(Text(cell) for cell in row))
    return shown
