"""Compared runs over training as small multiples: one panel a group, the other groups in grey behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, TypeAlias

from align_cache.judging.comparison import Comparison, Group
from align_cache.judging.judged_run import JudgedRun
from align_cache.reporting import style
from align_cache.reporting.comparison_words import untrained_key
from align_cache.reporting.tables import PAIRS, metric_title
from align_cache.reporting.wording import count
from align_cache.run_records import DIRECTIONS, dig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
_BEHIND = "#d3d6da"

Curve: TypeAlias = list[tuple[int, float]]


@dataclass(frozen=True)
class _Quantity:
    """One number over the epochs."""

    heading: str
    keys: tuple[str, ...]
    colour: str
    scale: float = 1.0


def comparison_curves(comparison: Comparison) -> Figure | None:
    """Draw loss, recall at 1 and alignment over the epochs; None where no run has logged two of them.

    A thin line is a run, a strong one the mean of its group. All panels of one quantity share their axes.
    """
    quantities = [each for each in _quantities(comparison) if any(map(len, _means(comparison, each)))]
    if not quantities:
        return None
    lines = -(-len(comparison.groups) // COLUMNS)
    columns = min(COLUMNS, len(comparison.groups))
    key = ["thin: runs; strong: their mean; grey: the other groups; validation split"]
    key += untrained_key(comparison)
    figure = style.keyed_figure(10.5, len(quantities) * lines * 2.15, key)
    axes = iter(style.panels(figure, len(quantities) * lines, columns))
    for quantity in quantities:
        _draw_quantity([next(axes) for _ in range(lines * columns)], comparison, quantity)
    return figure


def _quantities(comparison: Comparison) -> Iterator[_Quantity]:
    yield _Quantity("Validation loss", ("val", "loss"), style.INK)
    for way, label in DIRECTIONS.items():
        keys = ("retrieval", way, "r1")
        yield _Quantity(f"R@1 {label}, %", keys, style.DIRECTION_COLOURS[way], 100.0)
    records = (epoch for group in comparison.groups for run in group.runs for epoch in run.epochs)
    pair = "aligned_reference"
    for metric in dict.fromkeys(metric for record in records for metric in dig(record, "alignment") or ()):
        heading = f"{metric_title(metric)}, {PAIRS[pair]}"
        yield _Quantity(heading, ("alignment", metric, pair), style.PAIR_COLOURS[pair])


def _draw_quantity(axes: Sequence[Axes], comparison: Comparison, quantity: _Quantity) -> None:
    means = _means(comparison, quantity)
    values = [value for mean in means for _, value in mean]
    values += [
        value for group in comparison.groups for run in group.runs for _, value in _curve(run, quantity)
    ]
    epochs = sorted({epoch for mean in means for epoch, _ in mean})
    room = 0.08 * ((max(values) - min(values)) or 1.0)
    for place, axis in enumerate(axes):
        if place >= len(comparison.groups):
            axis.set_axis_off()
            continue
        group = comparison.groups[place]
        axis.set_ylim(min(values) - room, max(values) + room)
        _draw_group(axis, group, quantity, means, place)
        style.title(axis, quantity.heading if place == 0 else "", f"group {place + 1}, {_size(group)}")
        style.epoch_axis(axis, epochs, room=0.2)
        axis.set_xlabel("")


def _draw_group(axes: Axes, group: Group, quantity: _Quantity, means: Sequence[Curve], own: int) -> None:
    for place, mean in enumerate(means):
        if place != own and mean:
            axes.plot(*zip(*mean, strict=True), color=_BEHIND, linewidth=1.4, zorder=1)
    for run in group.runs:
        if curve := _curve(run, quantity):
            axes.plot(*zip(*curve, strict=True), color=quantity.colour, linewidth=0.7, alpha=0.5, zorder=2)
    if not means[own]:
        return
    axes.plot(*zip(*means[own], strict=True), color=quantity.colour, linewidth=style.LINE, zorder=3)
    epoch, value = means[own][-1]
    style.label_ends(axes, [(epoch, value, f"{value:#.3g}", quantity.colour)])


def _means(comparison: Comparison, quantity: _Quantity) -> list[Curve]:
    """Return each group's mean over the epochs that all of its runs have logged; empty for fewer than two."""
    means = []
    for group in comparison.groups:
        curves = [dict(_curve(run, quantity)) for run in group.runs]
        epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
        mean = [(epoch, fmean(curve[epoch] for curve in curves)) for epoch in epochs]
        means.append(mean if len(mean) > 1 else [])
    return means


def _curve(run: JudgedRun, quantity: _Quantity) -> Curve:
    found = ((epoch["epoch"], dig(epoch, *quantity.keys)) for epoch in run.epochs)
    return [
        (epoch, quantity.scale * value) for epoch, value in found if value is not None and isfinite(value)
    ]


def _size(group: Group) -> str:
    """Say on how many images a group was validated and how many runs it has."""
    sizes = sorted({epoch["n"] for run in group.runs for epoch in run.epochs if epoch.get("n")})
    known = f"N = {' or '.join(map(count, sizes))}, " if sizes else ""
    return f"{known}n = {len(group.runs)}"
