"""The two hypotheses: margins over training, and the evaluated ones with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_cache.reporting import style
from align_cache.reporting.tables import HYPOTHESES, METRICS, SPACES, Record, metric_title
from align_cache.reporting.wording import interval, number
from align_cache.run_records import RunRecords, dig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_VERDICT_COLOURS = {"supported": "#009e73", "not supported": "#c44e00", "undecided": style.MUTED}


def margin_curves(run: RunRecords) -> Figure | None:
    """Draw the margins of H1 and H2 over training, one panel per metric."""
    metrics = list(dict.fromkeys(metric for epoch in run.epochs for metric in dig(epoch, "hypotheses") or ()))
    if not metrics or len(run.measured) < 2:
        return None
    figure = style.new_figure(5.25 * len(metrics), 3.6)
    for axis, metric in zip(style.panels(figure, 1, len(metrics)), metrics, strict=True):
        size = f"N = {run.measured[-1].get('n', 0):,}"
        style.title(
            axis,
            metric_title(metric),
            f"margin over unimodal; above 0 aligned is better; {size}",
        )
        ends = [_draw_curve(axis, run, metric, key) for key in HYPOTHESES]
        _shade_above_zero(axis)
        style.epoch_axis(axis, [epoch["epoch"] for epoch in run.epochs], room=0.1)
        style.label_ends(axis, [end for end in ends if end is not None])
    return figure


def _draw_curve(axes: Axes, run: RunRecords, metric: str, key: str) -> tuple[float, float, str, str] | None:
    points = [(epoch["epoch"], dig(epoch, "hypotheses", metric, key)) for epoch in run.epochs]
    points = [(epoch, margin) for epoch, margin in points if margin is not None]
    if not points:
        return None
    colour = style.HYPOTHESIS_COLOURS[key]
    axes.plot(
        *zip(*points, strict=True), color=colour, linewidth=style.LINE, marker="o", markersize=2.6, zorder=3
    )
    return *points[-1], key.upper(), colour


def _shade_above_zero(axes: Axes) -> None:
    """Tint the half plane where the hypothesis holds, and keep zero in sight."""
    low, high = axes.get_ylim()
    span = max(high, 0.0) - min(low, 0.0)
    low, high = min(low, -0.08 * span), max(high, 0.08 * span)
    axes.axhspan(0, high, color="#e9f5f0", zorder=0)
    axes.axhline(0, color=style.MUTED, linewidth=1.0, zorder=1)
    axes.set_ylim(low, high)


def margin_intervals(run: RunRecords) -> Figure | None:
    """Draw the evaluation's margins with their 95% intervals, against embeddings and against features."""
    rows = list(_evaluated(run.evaluation))
    if not rows:
        return None
    groups = [group for counts in (False, True) if (group := [row for row in rows if row.counts == counts])]
    figure = style.new_figure(10.5, 0.3 + 0.7 * len(groups) + 0.34 * len(rows))
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(group) + 1 for group in groups])
    for axes, group in zip(grid[:, 0], groups, strict=True):
        style.calm(axes)
        _draw_intervals(axes, group)
    where = f"{dig(run.evaluation, 'split')} split, N = {dig(run.evaluation, 'n_images') or 0:,} images"
    style.title(
        grid[0, 0], "Margins of the evaluated checkpoint", f"{where}, bars: 95% intervals where measured"
    )
    return figure


@dataclass(frozen=True)
class _Row:
    label: str
    test: Record
    counts: bool
    """In counts of items instead of shares: it would dwarf the others on one axis."""


def _evaluated(evaluation: Record | None) -> Iterator[_Row]:
    for space in reversed(SPACES):
        for metric, tests in (dig(evaluation, "hypotheses", space) or {}).items():
            for key in HYPOTHESES:
                if dig(tests, key, "margin") is not None:
                    label = f"{key.upper()} · {METRICS.get(metric, metric)} · against {space}"
                    yield _Row(label, tests[key], counts=metric == "lcs_knn")


def _draw_intervals(axes: Axes, rows: Sequence[_Row]) -> None:
    for height, row in enumerate(reversed(rows)):
        _draw_interval(axes, height, row.test)
    axes.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.axvline(0, color=style.MUTED, linewidth=1.0, zorder=1)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=style.RULE)
    axes.margins(x=0.12)


def _draw_interval(axes: Axes, height: int, test: Record) -> None:
    """Draw one margin; its numbers and verdict stand in a column on the right."""
    bounds, verdict = test.get("interval"), test.get("verdict")
    colour = _VERDICT_COLOURS.get(verdict or "", style.MUTED)
    if bounds is not None:
        axes.plot(bounds, (height, height), color=colour, linewidth=2.2, solid_capstyle="round", zorder=2)
    axes.plot(
        test["margin"], height, marker="o", markersize=6.5, color=colour, markeredgecolor="white", zorder=3
    )
    shown = "interval not measured" if bounds is None else f"[{interval(bounds, signed=True)}]"
    for x, words in ((8, number(test["margin"], signed=True)), (62, shown), (192, verdict or "")):
        axes.annotate(
            words, (1, height), xycoords=("axes fraction", "data"), xytext=(x, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=colour, annotation_clip=False,
        )  # fmt: skip
