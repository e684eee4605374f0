"""Image–caption pairs laid out in the plane by t-SNE: images red, captions blue, pairs joined by a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_cache.errors import UsageError
from align_cache.reporting import style

if TYPE_CHECKING:
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from align_cache.reporting.space import Matrix

COLOURS = {"image": "#c8202f", "text": "#1f5fbf"}
"""Those of the second document; two colours alone, red and blue, are told apart by every reader."""
_LINE_COLOUR = "#a3a8af"


@dataclass(frozen=True, slots=True)
class Layout:
    """Pairs in the plane; row i of both is one pair."""

    image: Matrix
    """(n, 2)."""
    text: Matrix
    """(n, 2)."""
    divergence: float
    """Kullback-Leibler divergence that is left; layouts of one perplexity compare by it."""


def check_perplexities(asked: Sequence[int], *, points: int) -> tuple[int, ...]:
    """Return the perplexities, each once.

    Raises
    ------
    UsageError
        For one below 2, or not below the number of points.
    """
    for perplexity in asked:
        if not 2 <= perplexity < points:
            raise UsageError(
                f"perplexity {perplexity}: expected 2 to {points - 1}, as {points} points are drawn"
            )
    return tuple(dict.fromkeys(asked))


def lay_out(image: NDArray[Any], text: NDArray[Any], *, perplexity: int) -> Layout:
    """Lay out images and captions together.

    Started from their principal components, so that no seed decides which of many layouts is seen.

    Parameters
    ----------
    image, text : float array, shape (n, dim)
        Rows of one space; row i of both is one pair.
    perplexity : int
        About how many neighbours each point is to keep; 2 <= perplexity < 2 n.
    """
    import numpy as np
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    method = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=0)
    with threadpool_limits(1):  # a thousand short steps: threads that wait for each other cost more
        placed = method.fit_transform(np.concatenate([image, text]).astype(np.float32)).astype(np.float64)
    return Layout(placed[: len(image)], placed[len(image) :], float(method.kl_divergence_))


def pairs_figure(layout: Layout, *, heading: str, subtitle: str) -> Figure:
    """Draw one layout under a title and lines that say what it is of."""
    figure = style.new_figure(7.2, 7.6)
    (axes,) = style.panels(figure, 1, 1)
    style.title(axes, heading, subtitle)
    draw_pairs(axes, layout)
    tsne_legend(figure)
    return figure


def draw_pairs(axes: Axes, layout: Layout, *, scale: float = 1.0) -> None:
    """Draw points over lines, in an order in which no modality hides the other.

    Points have the area that suits a whole page, times ``scale``.
    """
    import numpy as np
    from matplotlib.collections import LineCollection

    n = len(layout.image)
    ends = np.stack([layout.image, layout.text], axis=1)  # (n pairs, 2 ends, 2)
    crowd = min(1.0, (200 / n) ** 0.5)  # twice as many pairs: points of half the area, paler lines
    lines = LineCollection(list(ends), colors=_LINE_COLOUR, linewidths=0.6, alpha=0.2 + 0.4 * crowd, zorder=1)
    axes.add_collection(lines)
    order = np.random.default_rng(0).permutation(2 * n)
    placed, colours = np.concatenate([layout.image, layout.text])[order], np.repeat([*COLOURS.values()], n)
    axes.scatter(
        placed[:, 0], placed[:, 1], s=scale * (34 * crowd**2 + 4), c=colours[order].tolist(), alpha=0.85,
        linewidths=0.3, edgecolors="white", zorder=2,
    )  # fmt: skip
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(style.RULE)


def tsne_legend(figure: Figure) -> None:
    """Say once, below the panels, what the marks are."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, colour in COLOURS.items()
    ]
    marks.append(Line2D([], [], color=_LINE_COLOUR, linewidth=1, label="one pair"))
    figure.legend(
        handles=marks, loc="outside lower left", ncols=3, frameon=False, fontsize=9.5, handletextpad=0.3,
        labelcolor=style.INK, columnspacing=1.6,
    )  # fmt: skip
