"""Who is next to whom among the points of a t-SNE, in the space that they come from and not in the plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK_ROWS = 512
_TIE = 1e-12
"""Cosines in float64 that differ by less are equal."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """What the nearest neighbour of each of 2n points is; shares of the points."""

    n_pairs: int
    own_pair: float
    """The other half of the point's own pair."""
    other_modality: float
    """A point of the other modality, the own pair or another."""

    @property
    def chance_own_pair(self) -> float:
        """``1 / (2n − 1)``, where any other point is as likely the nearest."""
        return 1 / (2 * self.n_pairs - 1)

    @property
    def chance_other_modality(self) -> float:
        """``n / (2n − 1)``, where modalities are mixed without a trace."""
        return self.n_pairs / (2 * self.n_pairs - 1)

    def to_record(self) -> dict[str, float]:
        """Return shares and chances by name, as JSON can hold them."""
        names = ("own_pair", "chance_own_pair", "other_modality", "chance_other_modality")
        return {name: getattr(self, name) for name in names}


def mixing(image: NDArray[np.floating], text: NDArray[np.floating]) -> Mixing:
    """Find the nearest neighbour of each image and of each caption among all others of both, by cosine.

    Parameters
    ----------
    image, text : float array, shape (n, dim)
        Rows of one space; row i of both is one pair.

    Returns
    -------
    Mixing
        A neighbour that is only as near as one that counts against is not counted: where all points are one,
        both shares are 0.

    Cost O(n² dim) time, O(n) memory beside the rows.
    """
    import numpy as np

    long = (rows.astype(np.float64) for rows in (image, text))
    images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in long)
    own, other = zip(*_nearest(images, texts), *_nearest(texts, images), strict=True)
    return Mixing(len(image), float(np.concatenate(own).mean()), float(np.concatenate(other).mean()))


def _nearest(
    queries: NDArray[np.floating], others: NDArray[np.floating]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield, block by block, whose nearest point is the own half, and whose is one of ``others``."""
    import numpy as np

    for start in range(0, len(queries), _BLOCK_ROWS):
        block = queries[start : start + _BLOCK_ROWS]
        rows = np.arange(len(block))
        within, across = block @ queries.T, block @ others.T
        within[rows, start + rows] = -np.inf  # no point is its own neighbour
        same, own = within.max(axis=1), across[rows, start + rows].copy()
        across[rows, start + rows] = -np.inf
        foreign = across.max(axis=1)
        yield own > np.maximum(same, foreign) + _TIE, np.maximum(own, foreign) > same + _TIE
