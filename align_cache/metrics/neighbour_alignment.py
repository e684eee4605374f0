"""Alignment by neighbour lists: whether two representations put the same items next to each other.

Every function takes rows, or :class:`~align_cache.metrics.neighbours.Neighbours` searched before, and
leaves an item out of its own neighbours. Definitions: Huh et al. 2024, arXiv 2405.07987.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.metrics.arrays import exact
from align_cache.metrics.neighbours import BLOCK_ROWS, Geometry, neighbour_pair, places


def mutual_knn(a: Geometry, b: Geometry, *, k: int = 10, block_rows: int = BLOCK_ROWS) -> float:
    """Share of the k nearest neighbours that two representations agree on.

    Parameters
    ----------
    a, b : float array, shape (n, dim_a) and (n, dim_b), or Neighbours
        Unit-norm rows; row i of both is the same item.
    k : int
        Neighbours per item, the item itself excluded; 1 <= k < n.
    block_rows : int
        Side of the square tiles of similarities that are held at once.

    Returns
    -------
    float in [0, 1]; two independent representations give k / (n - 1).

    Raises
    ------
    ShapeError, NonFiniteError

    Cost O(n² dim) time, O(block_rows² + n · dim) memory. Huh et al. 2024, arXiv 2405.07987.
    """
    return float(mutual_knn_scores(a, b, k=k, block_rows=block_rows).mean())


@exact
def mutual_knn_scores(
    a: Geometry, b: Geometry, *, k: int = 10, block_rows: int = BLOCK_ROWS
) -> NDArray[np.float64]:
    """Per-item terms of :func:`mutual_knn`: float64 (n,), multiples of 1/k; their mean is the metric."""
    found, _ = places(*neighbour_pair(a, b, k=k, block_rows=block_rows))
    return _to_numpy(found.sum(dim=1)) / k


def cycle_knn(a: Geometry, b: Geometry, *, k: int = 10, block_rows: int = BLOCK_ROWS) -> float:
    """Share of items that are an a-neighbour of one of their own b-neighbours.

    Parameters and errors are those of :func:`mutual_knn`. Not symmetric in a and b.

    Returns
    -------
    float in [0, 1].
    """
    return float(cycle_knn_scores(a, b, k=k, block_rows=block_rows).mean())


@exact
def cycle_knn_scores(
    a: Geometry, b: Geometry, *, k: int = 10, block_rows: int = BLOCK_ROWS
) -> NDArray[np.float64]:
    """Per-item terms of :func:`cycle_knn`: float64 (n,), each 0 or 1."""
    first, second = neighbour_pair(a, b, k=k, block_rows=block_rows)
    item = torch.arange(first.n, device=first.index.device)[:, None]  # (n, 1)
    edges = item * first.n + first.index  # j -> i as one number
    back = second.index * first.n + item  # from i's b-neighbour j back to i
    return _to_numpy(torch.isin(back, edges).any(dim=1))


def lcs_knn(a: Geometry, b: Geometry, *, k: int = 10, block_rows: int = BLOCK_ROWS) -> float:
    """Mean length of the longest common subsequence of the two ordered neighbour lists.

    Parameters and errors are those of :func:`mutual_knn`.

    Returns
    -------
    float in [0, k], not normalised.
    """
    return float(lcs_knn_scores(a, b, k=k, block_rows=block_rows).mean())


@exact
def lcs_knn_scores(
    a: Geometry, b: Geometry, *, k: int = 10, block_rows: int = BLOCK_ROWS
) -> NDArray[np.float64]:
    """Per-item terms of :func:`lcs_knn`: float64 (n,), integers from 0 to k."""
    found, place = places(*neighbour_pair(a, b, k=k, block_rows=block_rows))
    # No item stands twice in a list, so a common subsequence is an increasing run of places in b's list.
    longest = torch.zeros_like(place)  # (n, k): of the runs that end with a's j-th neighbour
    for j in range(k):
        before = longest[:, :j] * (place[:, :j] < place[:, j : j + 1])
        best = before.amax(dim=1) if j else torch.zeros_like(place[:, 0])
        longest[:, j] = (best + 1) * found[:, j]
    return _to_numpy(longest.amax(dim=1))


def edit_distance_knn(a: Geometry, b: Geometry, *, k: int = 10, block_rows: int = BLOCK_ROWS) -> float:
    """One less the mean edit distance of the two ordered neighbour lists over k.

    Parameters and errors are those of :func:`mutual_knn`.

    Returns
    -------
    float in [0, 1]; 1 for equal lists. Insertions, deletions and substitutions count one each.
    """
    return float(edit_distance_knn_scores(a, b, k=k, block_rows=block_rows).mean())


@exact
def edit_distance_knn_scores(
    a: Geometry, b: Geometry, *, k: int = 10, block_rows: int = BLOCK_ROWS
) -> NDArray[np.float64]:
    """Per-item terms of :func:`edit_distance_knn`: float64 (n,)."""
    first, second = neighbour_pair(a, b, k=k, block_rows=block_rows)
    steps = torch.arange(k + 1, device=first.index.device)  # (k + 1,)
    distance = steps.expand(first.n, -1)  # to the empty list, for each prefix of b's list
    for j in range(k):
        substituted = distance[:, :-1] + (second.index != first.index[:, j : j + 1])
        shorter = torch.minimum(substituted, distance[:, 1:] + 1)  # or a's j-th neighbour left out
        candidates = torch.cat([distance[:, :1] + 1, shorter], dim=1)
        # Leaving out of b's list costs one a step: a running minimum once the steps are taken off.
        distance = (candidates - steps).cummin(dim=1).values + steps
    return 1 - _to_numpy(distance[:, -1]) / k


def _to_numpy(scores: torch.Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = scores.cpu().double().numpy()
    return values
