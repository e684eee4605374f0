"""The two figures of a study: each level's recall over the conditions, and the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from align_cache.reporting import style
from align_cache.reporting.comparison_words import setting
from align_cache.reporting.study_words import METRICS, untrained_key, where
from align_cache.reporting.sweep_axes import axis
from align_cache.studies.results import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b2568f", "#b07c00", "#56a3c9")
_MARKERS = "osD^vP"
_POOLED = 1.35
"""Where the pooled difference stands, right of the conditions, which lie between 0 and 1."""


def levels_figure(study: Study) -> Figure:
    """Draw every metric over the conditions, a line a level: mean ± sd over seeds."""
    figure, panels = _begin(study, f"mean ± standard deviation over {len(study.seeds)} seeds; {where(study)}")
    at = _positions(study)
    for panel, metric in zip(panels, study.metrics, strict=False):
        for level in range(len(study.levels)):
            found = {place: study.spread(metric, place, level) for place in range(len(study.conditions))}
            known = {place: spread for place, spread in found.items() if spread is not None}
            panel.errorbar(
                [at[place] + _shift(study, level) for place in known],
                [100 * spread.mean for spread in known.values()],
                yerr=[100 * (spread.sd or 0.0) for spread in known.values()],
                color=_colour(study, level), marker=_marker(level), markersize=4.5, linewidth=1.2,
                elinewidth=1.4, capsize=2.5, label=setting(study.levels[level]),
            )  # fmt: skip
        _finish(panel, study, metric, "%")
    _legend(figure, panels[0])
    return figure


def differences_figure(study: Study) -> Figure:
    """Draw the paired differences to the baseline with their 95% intervals; at the right the pooled ones."""
    drawn = "dots: seeds; bars: 95% interval over seeds; thin at pooled: over seeds and images"
    figure, panels = _begin(study, f"less {setting(study.baseline)}, same seed; {drawn}; {where(study)}")
    for panel, metric in zip(panels, study.metrics, strict=False):
        panel.axhline(0, color=style.MUTED, linewidth=1.0, zorder=1)
        panel.axvline((1 + _POOLED) / 2, color=style.RULE, linewidth=1.0, zorder=1)
        for level in study.others:
            _draw_differences(panel, study, metric, level)
        _finish(panel, study, metric, "percentage points", pooled=True)
    _legend(figure, panels[0])
    return figure


def _draw_differences(panel: Axes, study: Study, metric: str, level: int) -> None:
    at, colour, shift = _positions(study), _colour(study, level), _shift(study, level)
    name = setting(study.levels[level])
    for place in range(len(study.conditions)):
        difference = study.difference(metric, place, level)
        if difference is None:
            continue
        seeds = list(study.paired(metric, place, level).values())
        _dots(panel, at[place] + shift, seeds, colour)
        _bar(panel, at[place] + shift, difference.mean, difference.interval, colour, _marker(level), name)
        name = "_nolegend_"  # named once
    overall = study.overall(metric, level)
    if overall is None:
        return
    mean, x = overall.difference.mean, _POOLED + shift
    if overall.wide_interval is not None:
        low, high = (100 * bound for bound in overall.wide_interval)
        panel.plot((x, x), (low, high), color=colour, linewidth=0.9, zorder=2)
    _bar(panel, x, mean, overall.difference.interval, colour, _marker(level), "_nolegend_", strong=True)


def _dots(panel: Axes, x: float, values: Sequence[float], colour: str) -> None:
    y = [100 * value for value in values]
    panel.plot([x] * len(y), y, linestyle="", marker="o", markersize=2.5, color=colour, alpha=0.55, zorder=2)


def _bar(
    panel: Axes, x: float, mean: float, interval: tuple[float, float] | None, colour: str, marker: str,
    name: str, *, strong: bool = False,
) -> None:  # fmt: skip
    low, high = interval or (mean, mean)
    panel.errorbar(
        [x], [100 * mean], yerr=[[100 * (mean - low)], [100 * (high - mean)]], color=colour, marker=marker,
        markersize=4.5, elinewidth=2.4 if strong else 1.4, label=name, zorder=3,
    )  # fmt: skip


def _begin(study: Study, key: str) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, len(study.metrics))
    rows = -(-len(study.metrics) // columns)
    figure = style.keyed_figure(
        2.9 * max(columns, 3), 2.5 * rows + 0.3, [f"{study.factor}: {key}", *untrained_key(study)]
    )
    panels = style.panels(figure, rows, columns)
    for panel in panels[len(study.metrics) :]:
        panel.set_axis_off()
    return figure, panels


def _finish(panel: Axes, study: Study, metric: str, unit: str, *, pooled: bool = False) -> None:
    name = METRICS[metric]
    style.title(panel, name[:1].upper() + name[1:], unit)
    keys = list(study.conditions[0])
    ticks = [
        (x, ", ".join(setting(value) for value in each.values()) or "all runs")
        for x, each in zip(_positions(study), study.conditions, strict=True)
    ]
    ticks += [(_POOLED, "pooled")] if pooled else []
    turned = sum(len(label) for _, label in ticks) > 26
    panel.set_xticks([x for x, _ in ticks], [label for _, label in ticks], parse_math=False,
                     rotation=30 if turned else 0, ha="right" if turned else "center")  # fmt: skip
    panel.set_xlim(-0.1, (_POOLED if pooled else 1.0) + 0.1)
    panel.set_xlabel(", ".join(keys), fontsize=8.5, color=style.MUTED, parse_math=False)


def _positions(study: Study) -> list[float]:
    """Return where each condition lies: by its value if one setting makes it, else side by side."""
    if len(study.conditions[0]) == 1:
        values = [next(iter(each.values())) for each in study.conditions]
        laid = axis("", values)
        return [laid.position(value) for value in values]
    return [(place + 0.5) / len(study.conditions) for place in range(len(study.conditions))]


def _shift(study: Study, level: int) -> float:
    """Return how far a level is moved sideways, so that bars of one condition lie side by side."""
    places = sorted(_positions(study))
    gaps = [b - a for a, b in pairwise(places)]
    step = min(0.045, 0.6 * min(gaps, default=1.0) / len(study.levels))
    return step * (level - (len(study.levels) - 1) / 2)


def _colour(study: Study, level: int) -> str:
    """Return a level's colour; the baseline is dark."""
    return _COLOURS[study.others.index(level) % len(_COLOURS)] if level in study.others else style.INK


def _marker(level: int) -> str:
    return _MARKERS[level % len(_MARKERS)]


def _legend(figure: Figure, panel: Axes) -> None:
    marks, names = panel.get_legend_handles_labels()
    figure.legend(marks, names, loc="outside lower left", ncols=len(names), frameon=False, fontsize=9,
                  labelcolor=style.INK)  # fmt: skip
