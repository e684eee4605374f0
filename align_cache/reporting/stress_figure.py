"""Recall against the level of noise: a panel a kind, clean pairs at the left end, chance as a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from align_cache.judging.comparison import Spread
from align_cache.judging.stress_comparison import StressComparison, StressGroup
from align_cache.judging.stress_record import Place
from align_cache.reporting import style
from align_cache.reporting.stress_tables import group_labels, level_label, noise_title
from align_cache.reporting.tables import chance_recall, where
from align_cache.results import Run
from align_cache.run_records import DIRECTIONS, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b2568f", "#b07c00", "#56a3c9", "#6b6f76", "#22262b")
"""Of groups of runs, in order, and again from the first."""

_LETTERS_AN_INCH = 14
_LABEL_ROOM = 0.17
"""Share of the x axis that a label takes; levels closer to the next have none."""

Kind: TypeAlias = Sequence[Place]
"""The levels of one kind of noise."""


@dataclass(frozen=True)
class _Line:
    """One recall over the levels of noise; None is no noise."""

    colour: str
    recall: Callable[[Place | None], Spread]


@dataclass(frozen=True)
class _Row:
    """Panels of one recall, which share their axis."""

    heading: str
    chance: float
    lines: Sequence[_Line]


def stress_figure(record: Record) -> Figure | None:
    """Draw one run's recall at 1 and at 10 both ways; None where no noise was measured."""
    if not record["points"]:
        return None
    run = StressComparison((StressGroup({}, (record["run"],), (record,)),))
    rows = [
        _Row(f"R@{k}", _chance(record, k), [
            _Line(style.DIRECTION_COLOURS[way], _recall(run.groups[0], way, k)) for way in DIRECTIONS
        ])
        for k in (1, 10)
    ]  # fmt: skip
    names = dict(zip(DIRECTIONS.values(), style.DIRECTION_COLOURS.values(), strict=True))
    return _figure(run, rows, names, "bands: 95% intervals over images")


def draw_stress(run: Run) -> Path | None:
    """Publish the figure of all that was measured of a run in its folder, and return its path."""
    record = run.stress()
    figure = None if record is None else stress_figure(record)
    return None if figure is None else style.save(figure, run.folder / "figures" / "stress.png")


def draw_stress_comparison(comparison: StressComparison, path: Path) -> Path:
    """Publish the figure of a comparison as PNG and return its path."""
    return style.save(stress_comparison_figure(comparison), path)


def stress_comparison_figure(comparison: StressComparison) -> Figure:
    """Draw the recall at 1 of groups of runs, each way, under the noise that all were measured with."""
    colours = [_COLOURS[place % len(_COLOURS)] for place in range(len(comparison.groups))]
    rows = [
        _Row(f"R@1 {label}", _chance(comparison.record, 1), [
            _Line(colour, _recall(group, way, 1))
            for colour, group in zip(colours, comparison.groups, strict=True)
        ])
        for way, label in DIRECTIONS.items()
    ]  # fmt: skip
    labels = [f"{place}  {label}" for place, label in enumerate(group_labels(comparison), start=1)]
    names = dict(zip(labels, colours, strict=True))
    return _figure(comparison, rows, names, "bands: mean ± sd over seeds, of a single run 95% over images")


def _figure(comparison: StressComparison, rows: Sequence[_Row], names: dict[str, str], bands: str) -> Figure:
    kinds = [list(levels) for _, levels in groupby(comparison.places, key=lambda place: place[:2])]
    columns = min(COLUMNS, max(2, len(kinds)))
    chunks = _chunks(kinds, columns)
    key = [f"{bands}; dotted: chance", where(comparison.record)]
    key += [f"UNTRAINED encoders: {', '.join(comparison.untrained)}"] if comparison.untrained else []
    lines = len(chunks) * len(rows)
    figure = style.keyed_figure(2.63 * columns, 2.3 * lines + 0.35, key)
    axes = iter(style.panels(figure, lines, columns))
    for chunk in chunks:
        for row in rows:
            _draw_row([next(axes) for _ in range(columns)], row, chunk)
    _name_lines(figure, names)
    return figure


def _chunks(kinds: Sequence[Kind], columns: int) -> list[list[Kind]]:
    """Cut the kinds into lines of panels; few stand in one, of many what the noise is on begins a new one."""
    if len(kinds) <= columns:
        return [list(kinds)]
    by_target = (list(group) for _, group in groupby(kinds, key=lambda kind: kind[0][0]))
    return [group[start : start + columns] for group in by_target for start in range(0, len(group), columns)]


def _draw_row(axes: Sequence[Axes], row: _Row, kinds: Sequence[Kind]) -> None:
    highest = 0.0
    for axis, kind in zip(axes, kinds, strict=False):
        on, name, _ = kind[0]
        style.title(axis, noise_title(name), f"on {on}, {row.heading}")
        _level_axis(axis, kind, row.chance)
        highest = max([highest, *(_draw_line(axis, line, kind) for line in row.lines)])
    for axis in axes[: len(kinds)]:
        _percent_axis(axis, 1.05 * highest)
    for unused in axes[len(kinds) :]:
        unused.set_axis_off()


def _draw_line(axes: Axes, line: _Line, kind: Kind) -> float:
    """Draw a line and its band; return how high it reaches."""
    levels = [0.0, *(level for _, _, level in kind)]
    spreads = [line.recall(place) for place in (None, *kind)]
    bounds = [_band(spread) for spread in spreads]
    axes.fill_between(
        levels, [low for low, _ in bounds], [high for _, high in bounds], color=line.colour, alpha=0.15,
        linewidth=0, zorder=2,
    )  # fmt: skip
    axes.plot(
        levels, [spread.mean for spread in spreads], color=line.colour, linewidth=style.LINE, marker="o",
        markersize=3.2, solid_capstyle="round", clip_on=False, zorder=3,
    )  # fmt: skip
    return max(high for _, high in bounds)


def _band(spread: Spread) -> tuple[float, float]:
    if spread.sd is not None:
        return max(0.0, spread.mean - spread.sd), spread.mean + spread.sd
    assert spread.interval is not None  # a single run has its own
    return spread.interval


def _level_axis(axes: Axes, kind: Kind, chance: float) -> None:
    """Label the x axis with the levels that were measured, the clean pairs at its left end."""
    levels = [level for _, _, level in kind]
    on = kind[0][0]
    labelled = [levels[-1]]
    for level in reversed(levels[:-1]):
        if min(labelled[-1] - level, level) >= _LABEL_ROOM * levels[-1]:
            labelled.append(level)
    axes.set_xticks([0, *labelled], ["clean", *(level_label(on, level) for level in labelled)])
    axes.set_xlim(-0.04 * levels[-1], 1.04 * levels[-1])
    axes.set_xlabel("rate" if on == "captions" else "severity", fontsize=8.5, color=style.MUTED)
    axes.axhline(chance, color=style.MUTED, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)


def _percent_axis(axes: Axes, top: float) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))


def _name_lines(figure: Figure, names: dict[str, str]) -> None:
    """Name the colours once, below all panels."""
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=colour, linewidth=style.LINE) for colour in names.values()]
    fits = int(_LETTERS_AN_INCH * figure.get_figwidth())
    labels = [name if len(name) <= fits else f"{name[: fits - 1]}…" for name in names]
    figure.legend(
        marks, labels, loc="outside lower left", ncols=1 if max(map(len, labels)) > 24 else 2,
        frameon=False, fontsize=9, labelcolor=style.INK,
    )  # fmt: skip


def _recall(group: StressGroup, way: str, k: int) -> Callable[[Place | None], Spread]:
    return lambda place: group.recall(place, way, k)


def _chance(record: Record, k: int) -> float:
    return max(chance_recall(record["clean"][way], k) for way in DIRECTIONS)
