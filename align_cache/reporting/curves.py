"""Curves over training: loss, alignment, retrieval, distribution. One function, one figure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from align_cache.reporting import style
from align_cache.reporting.tables import PAIRS, Record, chance_recall, metric_title
from align_cache.run_records import DIRECTIONS, RECALLS, RunRecords, dig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

_LOSSES = {
    "loss": ("Total loss", "contrastive + weighted terms"),
    "contrastive": ("Contrastive loss", "as configured"),
    "variance_share": ("Distribution term", "share of the total loss"),
}


def loss_curves(run: RunRecords) -> Figure | None:
    """Draw the loss, its two parts and the learning rate."""
    if len(run.epochs) < 2:
        return None
    figure = style.new_figure(10.5, 5.6)
    *axes, rate = style.panels(figure, 2, 2)
    for axis, (key, (heading, subtitle)) in zip(axes, _LOSSES.items(), strict=True):
        style.title(axis, heading, subtitle)
        _steps(axis, run, key)
        ends = [_curve(axis, run, ("train", key), "train", style.FAINT, dashed=True)]
        ends.append(_curve(axis, run, ("val", key), "validation", style.INK))
        _finish(axis, run, ends)
    axes[2].set_ylim(bottom=0)
    axes[2].yaxis.set_major_formatter(_percent_ticks())
    style.title(rate, "Learning rate")
    _rate(rate, run)
    return figure


def weighs_directions(run: RunRecords) -> bool:
    """Say whether a schedule weighed the two directions of the loss."""
    return any(dig(epoch, "train", "weight_image_to_text") for epoch in run.epochs)


def weight_curves(run: RunRecords) -> Figure | None:
    """Draw how a schedule weighed the two directions of the loss, step by step and in the mean of epochs."""
    if len(run.epochs) < 2 or not weighs_directions(run):
        return None
    figure = style.new_figure(6.0, 3.2)
    (axis,) = style.panels(figure, 1, 1)
    style.title(axis, "Weights of the two directions", "of the loss while training; together always 2")
    ends = []
    for way, label in DIRECTIONS.items():
        _steps(axis, run, f"weight_{way}")
        ends.append(_curve(axis, run, ("train", f"weight_{way}"), label, style.DIRECTION_COLOURS[way]))
    ends.append(_level(axis, run, 1.0, "alike"))
    _finish(axis, run, ends, room=0.3)
    return figure


def alignment_curves(run: RunRecords) -> Figure | None:
    """Draw the four pairs under each metric against the level that chance gives."""
    metrics = list(dict.fromkeys(metric for epoch in run.measured for metric in epoch["alignment"]))
    if not metrics or len(run.measured) < 2:
        return None
    figure = style.new_figure(5.25 * len(metrics), 4.0)
    for axis, metric in zip(style.panels(figure, 1, len(metrics)), metrics, strict=True):
        style.title(axis, metric_title(metric), f"validation, {_size(run, k=metric != 'cka')}")
        ends = [
            _curve(axis, run, ("alignment", metric, pair), label, style.PAIR_COLOURS[pair])
            for pair, label in PAIRS.items()
        ]
        axis.set_ylim(*_from_zero(axis))
        ends.append(_level(axis, run, dig(run.measured[-1], "chance", metric), "chance"))
        _finish(axis, run, ends, room=0.38)
    return figure


def retrieval_curves(run: RunRecords) -> Figure | None:
    """Draw recall at 1, 5 and 10 in both directions, with the recall of a random ranking."""
    found = [epoch["retrieval"] for epoch in run.epochs if dig(epoch, "retrieval")]
    if len(found) < 2:
        return None
    last = found[-1]
    figure = style.new_figure(10.5, 3.6)
    for axis, k in zip(style.panels(figure, 1, len(RECALLS)), RECALLS, strict=True):
        style.title(axis, f"Recall at {k}", f"validation, {_size(run)}")
        ends = [
            _curve(axis, run, ("retrieval", way, f"r{k}"), label, style.DIRECTION_COLOURS[way])
            for way, label in DIRECTIONS.items()
        ]
        axis.set_ylim(*_from_zero(axis))
        axis.yaxis.set_major_formatter(_percent_ticks())
        level = max((chance_recall(last[way], k) for way in DIRECTIONS if last.get(way)), default=None)
        ends.append(_level(axis, run, level, "chance"))
        _finish(axis, run, ends, room=0.44)
    return figure


def distribution_curves(run: RunRecords) -> Figure | None:
    """Draw how the embeddings are spread, how far that is from the reference, and how alike pairs are."""
    if sum("distribution" in epoch or "similarity" in epoch for epoch in run.epochs) < 2:
        return None
    figure = style.new_figure(10.5, 6.0)
    for axis, (keys, heading, subtitle) in zip(style.panels(figure, 2, 3), _DISTRIBUTION, strict=True):
        style.title(axis, heading, subtitle)
        ends = [
            _curve(axis, run, (*keys, name), name, colour) for name, colour in _DISTRIBUTION_COLOURS.items()
        ]
        ends.append(_curve(axis, run, keys, "", style.INK))
        if not any(ends):
            style.say_missing(axis, heading.lower())
            continue
        _finish(axis, run, ends, room=0.3 if any(end and end[2] for end in ends) else 0.0)
    return figure


_DISTRIBUTION = (
    (("similarity",), "Cosine similarity", "of an image and a caption, mean"),
    (("distribution", "modality_gap"), "Modality gap", "distance of the two centres"),
    (("distribution", "variance_difference"), "Variance difference", "aligned to reference, 0 = the same"),
    (("distribution", "effective_rank"), "Effective rank", "dimensions in use"),
    (("distribution", "uniformity"), "Uniformity", "lower = spread more evenly"),
    (("distribution", "mean_norm"), "Mean norm", "before normalising"),
)
_DISTRIBUTION_COLOURS = style.MODALITY_COLOURS | {
    "matched": style.PAIR_COLOURS["image_text"],
    "unmatched": style.MUTED,
}

_End = tuple[float, float, str, str]


def _curve(
    axes: Axes, run: RunRecords, keys: Sequence[str], label: str, colour: str, *, dashed: bool = False
) -> _End | None:
    """Draw one quantity over the epochs that have it; return its end for the label, None if none has."""
    points = [
        (epoch["epoch"], value)
        for epoch in run.epochs
        if isinstance(value := dig(epoch, *keys), int | float) and isfinite(value)
    ]
    if not points:
        return None
    epochs, values = zip(*points, strict=True)
    axes.plot(
        epochs, values, color=colour, linewidth=style.LINE, linestyle=(0, (4, 2)) if dashed else "-",
        marker="o", markersize=2.6, solid_capstyle="round", clip_on=False, zorder=3,
    )  # fmt: skip
    return epochs[-1], values[-1], label, colour


def _finish(axes: Axes, run: RunRecords, ends: Sequence[_End | None], *, room: float = 0.22) -> None:
    style.epoch_axis(axes, [epoch["epoch"] for epoch in run.epochs], room=room)
    _mark_best(axes, run)
    style.label_ends(axes, [end for end in ends if end is not None])


def _mark_best(axes: Axes, run: RunRecords) -> None:
    """Mark the epoch whose checkpoint is evaluated."""
    if run.best_epoch is not None:
        axes.axvline(run.best_epoch, color=style.FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate(
            "best", (run.best_epoch, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", ha="center", fontsize=7.5, color=style.FAINT,
        )  # fmt: skip


def _level(axes: Axes, run: RunRecords, level: float | None, label: str) -> _End | None:
    """Draw a level to compare with, such as what chance gives; return its end for the label."""
    if level is None:
        return None
    first, last = run.epochs[0]["epoch"], run.epochs[-1]["epoch"]
    axes.plot(
        (first, last), (level, level), color=style.MUTED, linewidth=1.2, linestyle=(0, (1, 2)), zorder=2
    )
    return last, level, label, style.MUTED


def _steps(axes: Axes, run: RunRecords, key: str) -> None:
    """Draw the logged steps as a pale line behind the epochs; a step's place is its share of the run."""
    if run.steps:
        values = [record.get(key, float("nan")) for record in run.steps]
        axes.plot(_as_epochs(run), values, color="#d6d9dd", linewidth=1.2, zorder=1)


def _rate(axes: Axes, run: RunRecords) -> None:
    if run.steps:
        axes.plot(
            _as_epochs(run), [record["lr"] for record in run.steps], color=style.INK, linewidth=style.LINE
        )
        axes.set_ylim(bottom=0)
        _finish(axes, run, [])
    else:
        _finish(axes, run, [_curve(axes, run, ("lr",), "", style.INK)])
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    axes.yaxis.get_offset_text().set(size=8.5, color=style.MUTED)


def _as_epochs(run: RunRecords) -> list[float]:
    """Return each logged step as a fraction of epochs."""
    last = run.steps[-1]
    per_epoch = run.record.get("steps_per_epoch") or last["step"] / last["epoch"]
    return [record["step"] / per_epoch for record in run.steps]


def _from_zero(axes: Axes) -> tuple[float, float]:
    low, high = axes.dataLim.intervaly
    return min(0.0, low), max(high, 1e-9) * 1.08


def _percent_ticks() -> FuncFormatter:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda share, _: f"{100 * share:.3g}%")


def _size(run: RunRecords, *, k: bool = False) -> str:
    last: Record = next((epoch for epoch in reversed(run.epochs) if "n" in epoch), {})
    neighbours = f", k = {last.get('k')}" if k else ""
    return f"N = {last.get('n', 0):,}{neighbours}"
