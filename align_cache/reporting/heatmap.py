"""Which modalities agree: the matrix of pairs, and how each pair got there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_cache.reporting import style
from align_cache.reporting.tables import PAIRS, Record, metric_title
from align_cache.run_records import RunRecords, dig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

ROWS, COLUMNS = ("text", "reference"), ("image", "text", "aligned")
"""The part of modality x modality that is measured; the rest is its mirror or one against its own mean."""


def alignment_heatmap(run: RunRecords) -> Figure | None:
    """Draw for each metric the matrix at the best epoch, and beside it every pair over all epochs."""
    epochs = [epoch for epoch in run.epochs if epoch.get("alignment")]
    if not epochs:
        return None
    metrics = list(dict.fromkeys(metric for epoch in epochs for metric in epoch["alignment"]))
    figure = style.new_figure(10.5, 2.9 * len(metrics))
    grid = figure.subplots(len(metrics), 2, width_ratios=(1, 1.9), squeeze=False)
    for (matrix, strip), metric in zip(grid, metrics, strict=True):
        top = _highest(epochs, metric)
        shown = next((epoch for epoch in epochs if epoch["epoch"] == run.best_epoch), epochs[-1])
        _draw_matrix(matrix, shown, metric, top)
        _draw_strip(strip, epochs, metric, top)
    return figure


def _highest(epochs: list[Record], metric: str) -> float:
    values = [dig(epoch, "alignment", metric, pair) for epoch in epochs for pair in PAIRS]
    return float(max([1e-9, *(value for value in values if value is not None)]))


def _draw_matrix(axes: Axes, epoch: Record, metric: str, top: float) -> None:
    """Draw modality x modality, values written in the cells."""
    style.title(axes, metric_title(metric), f"epoch {epoch['epoch']}, N = {epoch.get('n', 0):,}")
    for pair in PAIRS:
        column, row = pair.split("_")
        x, y, value = COLUMNS.index(column), ROWS.index(row), dig(epoch, "alignment", metric, pair)
        share = _cell(axes, x, y, value, top)
        ink = style.FAINT if share is None else "white" if share > 0.5 else style.INK
        axes.text(x, y, _short(value), ha="center", va="center", fontsize=9, color=ink)
    _frame(axes, len(COLUMNS), len(ROWS))
    axes.set_anchor("NW")
    axes.set_xticks(range(len(COLUMNS)), COLUMNS)
    axes.set_yticks(range(len(ROWS)), ROWS)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_color(style.MODALITY_COLOURS[label.get_text()])


def _draw_strip(axes: Axes, epochs: list[Record], metric: str, top: float) -> None:
    """Draw pairs x epochs in the colours of the matrix, the first and the last value beside them."""
    style.title(axes, "Over training", f"colour from 0 to {top:.3f}, the highest of this run")
    for y, pair in enumerate(PAIRS):
        values = [dig(epoch, "alignment", metric, pair) for epoch in epochs]
        for x, value in enumerate(values):
            _cell(axes, x, y, value, top)
        measured = any(value is not None for value in values)
        change = f"{_short(values[0])} → {_short(values[-1])}" if measured else "not measured"
        axes.annotate(
            change, (len(epochs) - 0.5, y), xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=style.INK, annotation_clip=False,
        )  # fmt: skip
    _frame(axes, len(epochs), len(PAIRS))
    axes.set_aspect("auto")
    axes.set_yticks(range(len(PAIRS)), list(PAIRS.values()))
    every = -(-len(epochs) // 11)
    axes.set_xticks(range(0, len(epochs), every), [str(epoch["epoch"]) for epoch in epochs[::every]])
    axes.set_xlabel("epoch", fontsize=8.5, color=style.MUTED)


def _cell(axes: Axes, x: int, y: int, value: float | None, top: float) -> float | None:
    """Draw one cell; return its place on the colour scale, None where nothing was measured."""
    from matplotlib.patches import Rectangle

    share = None if value is None else min(max(value / top, 0.0), 1.0)
    colour = "#f3f4f5" if share is None else _colours()(share)
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.2))
    return share


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "alignment", ["#f4f7f5", "#b7dccf", "#5fb498", "#12805f", "#064a38"]
    )


def _frame(axes: Axes, columns: int, rows: int) -> None:
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
    axes.tick_params(length=0, labelsize=8.5, labelcolor=style.MUTED)
    for spine in axes.spines.values():
        spine.set_visible(False)
