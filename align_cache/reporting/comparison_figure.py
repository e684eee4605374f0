"""The final values of compared runs as small multiples: a panel a number, a line a group, a dot a run."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from align_cache.judging.comparison import Comparison, Group
from align_cache.reporting import style
from align_cache.reporting.comparison_words import group_key, in_percent, parts, untrained_key, where, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
_COLOURS = {**style.DIRECTION_COLOURS, **style.PAIR_COLOURS, **style.HYPOTHESIS_COLOURS}


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Publish the figure of a comparison as PNG and return its path."""
    return style.save(comparison_figure(comparison), path)


def comparison_figure(comparison: Comparison, *, named: bool = True) -> Figure:
    """Draw every number but the calibrated scores: each run a dot, each group its mean and spread.

    ``named`` says in the figure what each group is; on a page a table says it.
    """
    lines = _lines(tuple(name for name in comparison.names if not name.startswith("calibrated.")))
    key = [*_key(comparison), *(group_key(comparison) if named else ()), *untrained_key(comparison)]
    height = len(lines) * (0.95 + 0.26 * len(comparison.groups))
    figure = style.keyed_figure(10.5, height, key)
    axes = style.panels(figure, len(lines), COLUMNS)
    for start, names in zip(range(0, len(axes), COLUMNS), lines, strict=True):
        for axis, name in zip(axes[start : start + COLUMNS], (*names, *[""] * COLUMNS), strict=False):
            if name:
                _panel(axis, comparison, name, labelled=name == names[0])
            else:
                axis.set_axis_off()
    return figure


def _lines(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Cut the numbers into lines of panels; each kind of number begins a new one."""
    lines: list[tuple[str, ...]] = []
    for _, kind in groupby(names, key=lambda name: name.split(".")[:-1]):
        members = tuple(kind)
        if (
            lines
            and len(lines[-1]) + len(members) <= COLUMNS
            and _family(lines[-1][0]) == _family(members[0])
        ):
            lines[-1] += members
        else:
            lines += [members[start : start + COLUMNS] for start in range(0, len(members), COLUMNS)]
    return lines


def _family(name: str) -> str:
    family = name.split(".")[0]
    return "distribution" if family in ("val_loss", "similarity") else family


def _panel(axes: Axes, comparison: Comparison, name: str, *, labelled: bool) -> None:
    style.title(axes, *words(name))
    groups = comparison.groups
    for height, group in enumerate(groups):
        _draw_group(axes, height, group, name)
    labels = [str(index) for index in range(1, len(groups) + 1)] if labelled else [""] * len(groups)
    axes.set_yticks(range(len(groups)), labels)
    axes.set_ylim(len(groups) - 0.5, -0.5)  # group 1 on top
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=style.RULE)
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=4)
    if name.startswith("hypotheses."):
        axes.axvline(0, color=style.MUTED, linewidth=1.0, zorder=1)


def _draw_group(axes: Axes, height: int, group: Group, name: str) -> None:
    """Draw the runs as dots, their mean as a tick, one sd to both sides as a bar; of one run its interval."""
    spread = group.numbers.get(name)
    if spread is None:
        axes.annotate(
            "not measured", (0, height), xycoords=("axes fraction", "data"), va="center", fontsize=8,
            color=style.FAINT,
        )  # fmt: skip
        return
    scale = 100 if in_percent(name) else 1
    colour = next((_COLOURS[part] for part in name.split(".") if part in _COLOURS), style.INK)
    values = [scale * run.numbers[name] for run in group.runs if name in run.numbers]
    mean = scale * spread.mean
    if spread.sd is not None:
        bar, width, alpha = (mean - scale * spread.sd, mean + scale * spread.sd), 7.0, 0.3
    else:
        low, high = spread.interval or (spread.mean, spread.mean)
        bar, width, alpha = (scale * low, scale * high), 2.0, 0.8
    axes.plot(
        bar, (height, height), color=colour, alpha=alpha, linewidth=width, solid_capstyle="butt", zorder=2
    )
    axes.plot(
        values, [height] * len(values), linestyle="", marker="o", markersize=4, color=colour,
        markeredgecolor="white", markeredgewidth=0.5, zorder=3,
    )  # fmt: skip
    axes.plot(mean, height, marker="|", markersize=12, markeredgewidth=1.6, color=style.INK, zorder=4)


def _key(comparison: Comparison) -> list[str]:
    """Say what is drawn and what it was measured on."""
    drawn = []
    if any(len(group.runs) > 1 for group in comparison.groups):
        drawn.append("dots: runs; tick and bar: mean ± standard deviation over seeds")
    if any(len(group.runs) == 1 for group in comparison.groups):
        drawn.append("thin bar of a single run: its 95% interval over items")
    measured = where(comparison, *parts(comparison, "alignment", 1))
    return ["; ".join(drawn), measured]
