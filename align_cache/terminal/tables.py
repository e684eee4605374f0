"""Records as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align_cache.reporting.evaluation_tables import evaluation_tables
from align_cache.reporting.leaderboard import leaderboard_table
from align_cache.reporting.run_table import run_table
from align_cache.reporting.tables import Table

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

    from align_cache.judging.comparison import Comparison
    from align_cache.studies.results import Study
    from align_cache.sweeps.records import RankBy, TrialRecord


def evaluation_table(record: Mapping[str, Any]) -> Group:
    """Render an evaluation record (a line of ``results.jsonl``) for the terminal.

    Parameters
    ----------
    record : mapping
        ``{"kind": "evaluation", …}`` as ``evaluate`` returns it; any part may be None.

    Returns
    -------
    rich.console.Group
        Retrieval, alignment, null, hypotheses, distribution and probe, each with its N, k and intervals.
    """
    from rich.console import Group
    from rich.text import Text

    warnings = [Text(line, style="bold red") for line in _untrained_lines(record)]
    tables = [rich_table(table) for table in evaluation_tables(record)]
    notes = [Text(f"note: {note}", style="dim") for note in record.get("notes") or ()]
    return Group(*warnings, *tables, *notes)


def run_summary(run: Mapping[str, Any]) -> Group:
    """Render a run record (``run.json``) for the terminal: what was trained on what."""
    from rich.console import Group
    from rich.text import Text

    warnings = [Text(line, style="bold red") for line in _untrained_lines(run)]
    return Group(*warnings, rich_table(run_table(run)))


def comparison_table(comparison: Comparison) -> Group:
    """Render a comparison of runs for the terminal: groups, numbers, differences, what was left out."""
    from rich.console import Group
    from rich.text import Text

    from align_cache.reporting.comparison import comparison_tables

    warnings = [
        Text(line, style="bold red") for line in _untrained_lines({"untrained": comparison.untrained})
    ]
    return Group(*warnings, *(rich_table(table) for table in comparison_tables(comparison)))


def tables_group(
    tables: Sequence[Table], *, untrained: Sequence[str] = (), notes: Sequence[str] = ()
) -> Group:
    """Render tables for the terminal, what has to be known of them above and below."""
    from rich.console import Group
    from rich.text import Text

    warnings = [Text(line, style="bold red") for line in _untrained_lines({"untrained": untrained})]
    said = [Text(f"note: {note}", style="dim") for note in notes]
    return Group(*warnings, *map(rich_table, tables), *said)


def pairs_table(record: Mapping[str, Any]) -> Group:
    """Render what was measured of the pairs that were drawn, for the terminal."""
    from rich.console import Group
    from rich.text import Text

    from align_cache.reporting.pairs_table import pairs_table as table_of

    warnings = [Text(line, style="bold red") for line in _untrained_lines(record)]
    return Group(*warnings, rich_table(table_of(record)))


def runs_table(entries: Sequence[Mapping[str, Any]]) -> RichTable:
    """Render the runs of a cache for the terminal, one a line."""
    from align_cache.reporting.run_list import list_table

    table = rich_table(list_table(entries))
    table.columns[0].no_wrap = True  # an id has to be copied whole
    return table


def sweep_table(trials: Sequence[TrialRecord], rank_by: RankBy) -> RichTable:
    """Render every trial of a sweep for the terminal, the best first."""
    table = rich_table(leaderboard_table(trials, rank_by))
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
    return Group(*warnings, *map(rich_table, tables), *said)


def _untrained_lines(record: Mapping[str, Any]) -> list[str]:
    names = record.get("untrained") or ()
    return (
        [f"UNTRAINED encoders: {', '.join(names)}: the numbers say nothing about real models"]
        if names
        else []
    )


def rich_table(table: Table) -> RichTable:
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
