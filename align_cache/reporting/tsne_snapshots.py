"""t-SNE of the first and the last snapshot: do images and captions mix, do pairs come together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from align_cache.errors import RunError
from align_cache.reporting import style
from align_cache.reporting.mixing import mixing
from align_cache.reporting.tsne import check_perplexities, draw_pairs, lay_out, tsne_legend
from align_cache.run_records import RunRecords
from align_cache.snapshots import load_snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from align_cache.reporting.space import Space

DEFAULT_PERPLEXITY = 30
POINTS_PER_PERPLEXITY = 3
"""Neighbourhoods that take in more than a third of all points show nothing: none is drawn unasked."""
PAIRS = 300
"""At most so many pairs: two panels side by side have no room for more, and the time grows with them."""
TSNE_FILE_HEAD = "tsne-first-last-perplexity-"
"""Of the names of these figures, without folder; ``align-cache plot tsne`` has names of its own."""


def chosen_perplexities(run: RunRecords, space: Space | None, asked: Sequence[int] | None) -> tuple[int, ...]:
    """Return the perplexities to draw: those asked for, or the usual one where there are points enough.

    Raises
    ------
    UsageError
        For one below 2, or not below the number of points.
    RunError
        If one is asked for and the run has no snapshots.
    """
    if space is None:
        if asked:
            raise RunError(
                f"{run.folder.name} has no snapshots to draw", hint="train with --set log.viz_frequency=1"
            )
        return ()
    points = 2 * len(space.points[max(space.points)]["image"][:PAIRS])
    if asked is None:
        return (DEFAULT_PERPLEXITY,) if points > POINTS_PER_PERPLEXITY * DEFAULT_PERPLEXITY else ()
    return check_perplexities(asked, points=points)


def first_and_last_figure(run: RunRecords, perplexity: int) -> Figure:
    """Draw the first and the last snapshot at one perplexity, each pair joined by a line."""
    figure = style.new_figure(10.5, 6.1)
    epochs = list(dict.fromkeys((min(run.snapshots), max(run.snapshots))))
    for axis, epoch in zip(style.panels(figure, 1, len(epochs)), epochs, strict=True):
        n = _draw_epoch(axis, run, epoch, perplexity)
    tsne_legend(figure)
    figure.supxlabel(
        f"t-SNE, perplexity {perplexity}, of {n:,} validation pairs. Every panel is a layout of its own: near"
        " is alike,\nhow far is far means little, and so do directions and the sizes of groups.",
        x=0.99, ha="right", fontsize=8.5, color=style.MUTED,
    )  # fmt: skip
    return figure


def _draw_epoch(axes: Axes, run: RunRecords, epoch: int, perplexity: int) -> int:
    """Draw one panel, and return how many pairs it shows."""
    rows = load_snapshot(run.snapshots[epoch])
    image, text = rows["image"][:PAIRS], rows["text"][:PAIRS]
    layout, mixed = lay_out(image, text, perplexity=perplexity), mixing(image, text)
    draw_pairs(axes, layout, scale=0.5)
    style.title(
        axes,
        f"epoch {epoch}, before training" if epoch == 0 else f"epoch {epoch}",
        f"nearest neighbour before the layout: own pair {mixed.own_pair:.1%}, other modality "
        f"{mixed.other_modality:.1%}\ndivergence left {layout.divergence:.2f}",
    )
    return len(image)
