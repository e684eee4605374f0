"""A comparison of runs as one self-contained page: curves, final values, every table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align_cache.files import publish_text
from align_cache.judging.comparison import Comparison, Spread
from align_cache.reporting import html, prose, style
from align_cache.reporting.comparison import comparison_sections
from align_cache.reporting.comparison_curves import comparison_curves
from align_cache.reporting.comparison_figure import comparison_figure
from align_cache.reporting.comparison_words import parts, setting, share_or_number, spread_note, where, words
from align_cache.reporting.document import Section, document
from align_cache.reporting.tables import Table
from align_cache.reporting.wording import NOT_MEASURED, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def publish_comparison(comparison: Comparison, path: Path) -> Path:
    """Write a comparison as one HTML file that needs nothing beside it, and return its path."""
    publish_text(path, comparison_page(comparison))
    return path


def comparison_page(comparison: Comparison) -> str:
    """Return a comparison as HTML: what differs, curves over training, final values, tables."""
    tables = comparison_sections(comparison)
    del tables["Groups"]  # here a column a group: a page grows downwards, a terminal sideways
    sections: list[Section] = [
        ("groups", "What is compared", [html.table(_groups(comparison)), _shared(comparison)]),
        ("training", "Over training", [html.paragraph(prose.CURVES), _curves(comparison)]),
        ("values", "In the end", [html.paragraph(prose.FINAL_VALUES), _values(comparison)]),
    ]
    for heading, shown in tables.items():
        sections.append((heading.lower().replace(" ", "-"), heading, ["".join(map(html.table, shown))]))
    sections.append(("numbers", "Every number", [html.table(_all_numbers(comparison))]))
    runs = sum(len(group.runs) for group in comparison.groups)
    title = f"{len(comparison.groups)} groups, {runs} runs" if len(comparison.groups) > 1 else f"{runs} runs"
    return document(title, _header(comparison, title), sections, "Made by align-cache compare.")


def _header(comparison: Comparison, title: str) -> str:
    datasets = dict.fromkeys(text(run.settings.get("data.dataset")) for group in comparison.groups
                             for run in group.runs)  # fmt: skip
    warning = ""
    if comparison.untrained:
        names = ", ".join(comparison.untrained)
        warning = html.paragraph(f"UNTRAINED: {names}. {prose.UNTRAINED}", kind="warning")
    measured = html.paragraph(where(comparison), kind="lead")
    place = html.paragraph(" · ".join(datasets), kind="where")
    return f"{place}{html.heading(f'Comparison of {title}')}{warning}{measured}"


def _groups(comparison: Comparison) -> Table:
    """Return what tells the groups apart, a line a setting, with their seeds and the number of their runs."""
    groups = comparison.groups
    rows = [(key, *(setting(group.settings[key]) for group in groups)) for key in groups[0].settings]
    rows.append(("seeds", *(", ".join(str(run.seed) for run in group.runs) for group in groups)))
    rows.append(("runs, n", *(str(len(group.runs)) for group in groups)))
    columns = ("setting", *(f"group {index}" for index in range(1, len(groups) + 1)))
    return Table("", columns, tuple(rows), spread_note(comparison))


def _shared(comparison: Comparison) -> str:
    """Return the settings that all groups have, behind a line."""
    rows = tuple((key, text(value)) for key, value in comparison.shared.items())
    return html.folded(
        "settings that all groups share", html.table(Table("", ("", ""), rows, label_columns=2))
    )


def _curves(comparison: Comparison) -> str:
    return _embedded(comparison_curves(comparison), "Loss, recall at 1 and alignment after each epoch")


def _values(comparison: Comparison) -> str:
    return _embedded(
        comparison_figure(comparison, named=False), "Evaluated checkpoints: every run, mean and spread"
    )


def _embedded(figure: Figure | None, caption: str) -> str:
    return html.figure(None if figure is None else style.png(figure), caption)


def _all_numbers(comparison: Comparison) -> Table:
    """Return a line for each number and group: mean, deviation, interval and how many runs."""
    rows = []
    for name in comparison.names:
        label = " · ".join(part for part in words(name) if part)
        for index, group in enumerate(comparison.groups, start=1):
            if (spread := group.numbers.get(name)) is not None:
                rows.append((label, str(index), *_spread_cells(name, spread)))
    note = (
        "interval: 95%, of the mean over seeds by Student's t (n runs); of a single run its own over items;"
        f" {where(comparison, *parts(comparison, 'alignment', 1))}"
    )
    columns = ("number", "group", "mean", "sd", "95% interval", "n")
    return Table("", columns, tuple(rows), note, label_columns=2)


def _spread_cells(name: str, spread: Spread) -> tuple[str, ...]:
    signed = name.startswith("hypotheses.")
    low_high = [share_or_number(name, value, signed=signed) for value in spread.interval or ()]
    return (
        share_or_number(name, spread.mean, signed=signed),
        "" if spread.sd is None else share_or_number(name, spread.sd),
        " … ".join(low_high) or NOT_MEASURED,
        str(spread.n),
    )
