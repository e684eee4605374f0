"""Where the points of the map lie: the plane of two principal axes, or a t-SNE of some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from align_cache.reporting.space import principal_axes
from align_cache.reporting.tsne import lay_out
from align_cache.viewing.shown_pairs import ShownPairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LayoutName: TypeAlias = Literal["pca", "tsne"]

TSNE_PAIRS = 500
"""At most so many pairs in a t-SNE: some seconds on one core."""
PERPLEXITY = 30


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Pairs in the plane, within [-1, 1] both ways, not stretched."""

    rows: NDArray[np.int64]
    """(m,) rows of the shown pairs that are placed."""
    image: NDArray[np.float64]
    """(m, 2)."""
    text: NDArray[np.float64]
    """(m, 2)."""
    note: str
    """What the layout can tell."""


def place(shown: ShownPairs, layout: LayoutName) -> Placed:
    """Lay the pairs that are shown out in the plane."""
    return _plane(shown) if layout == "pca" else _tsne(shown)


def _plane(shown: ShownPairs) -> Placed:
    """Project images and captions together on the two axes along which they vary most."""
    import numpy as np

    points = np.concatenate([shown.image, shown.text]).astype(np.float64)
    centred = points - points.mean(axis=0)
    axes, shares = principal_axes(centred)
    carried = " and ".join(f"{share:.1%}" for share in shares[:2])
    return _scaled(
        np.arange(len(shown)),
        centred @ axes[:, :2],
        f"PCA of images and captions together: the two axes carry {carried} of the variance",
    )


def _tsne(shown: ShownPairs) -> Placed:
    import numpy as np

    n = len(shown)
    rows = np.sort(np.random.default_rng(0).permutation(n)[:TSNE_PAIRS])
    perplexity = min(PERPLEXITY, 2 * len(rows) - 1)
    layout = lay_out(shown.image[rows], shown.text[rows], perplexity=perplexity)
    some = f" of {len(rows):,} pairs drawn at random" if len(rows) < n else ""
    return _scaled(
        rows,
        np.concatenate([layout.image, layout.text]),
        f"t-SNE{some}, perplexity {perplexity}: near is alike; how far apart far groups lie means little",
    )


def _scaled(rows: NDArray[np.int64], points: NDArray[np.float64], note: str) -> Placed:
    """Move the middle of the points' box to the origin and its longer side to [-1, 1]."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(float((high - low).max()) / 2, 1e-12)
    scaled = (points - (low + high) / 2) / half
    return Placed(rows, scaled[: len(rows)], scaled[len(rows) :], note)
