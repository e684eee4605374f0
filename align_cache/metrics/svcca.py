"""Singular vector canonical correlation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.errors import NonFiniteError, ShapeError
from align_cache.metrics.arrays import Array, Rows, as_pair, exact
from align_cache.metrics.centred import cross_product, varying


@exact
def svcca(a: Array, b: Array, *, dim: int = 10) -> float:
    """Mean canonical correlation of the leading singular directions of two representations.

    Parameters
    ----------
    a, b : float array, shape (n, dim_a) and (n, dim_b)
        Row i of both is the same item. Columns are scaled to unit variance, constant ones to 0.
    dim : int
        Directions of each; 1 <= dim < n, and at most the rank of either.

    Returns
    -------
    float in [0, 1]; two independent representations give about √(dim / n), not 0.

    Raises
    ------
    ShapeError, NonFiniteError

    The leading directions are exact, so nothing is drawn at random: the implementation of Huh et al. 2024
    (arXiv 2405.07987) draws them at random and agrees where the spectrum falls off after ``dim``.
    Cost O(n dim_a²) time, O(dim²) memory.
    """
    left, right = _directions(a, b, dim)
    return _mean_correlation(left, right)


@exact
def svcca_of_permutations(
    a: Array, b: Array, orders: Iterable[NDArray[np.int64]], *, dim: int = 10
) -> list[float]:
    """:func:`svcca` of ``a`` and ``b[order]`` for each order; the directions are found once."""
    left, right = _directions(a, b, dim)
    return [_mean_correlation(left, right[torch.from_numpy(order)]) for order in orders]


def _directions(a: Array, b: Array, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Leading directions of both, each (n, dim)."""
    x, y = as_pair(a, b, min_rows=2)
    if not 1 <= dim < x.n or dim > min(x.dim, y.dim):
        raise ShapeError(f"dim is {dim} with {x.n} rows of {x.dim} and {y.dim} dimensions; "
                         f"expected 1 <= dim <= {min(x.n - 1, x.dim, y.dim)}")  # fmt: skip
    return _leading_directions(x, dim), _leading_directions(y, dim)


def _mean_correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    """Mean canonical correlation of two sets of orthonormal columns."""
    return float(torch.linalg.svdvals(left.T @ right).clamp(max=1).mean())


def _leading_directions(rows: Rows, dim: int) -> torch.Tensor:
    """Left singular vectors of the standardised rows: float64 (n, dim) on the CPU, by the dim x dim side."""
    centred = varying(rows)
    moment = cross_product(centred, centred)
    deviation = (moment.diagonal() / (rows.n - 1)).sqrt()
    scale = torch.where(deviation > 0, 1 / deviation, 0.0)
    values, vectors = torch.linalg.eigh(scale[:, None] * moment * scale)
    if float(values[-dim]) <= 1e-6 * float(values[-1]):
        raise NonFiniteError(f"{rows.name} varies in fewer than {dim} directions; use a smaller dim")
    mapping = (scale[:, None] * vectors[:, -dim:] / values[-dim:].sqrt()).to(rows.device, torch.float32)
    parts = [(centred.block(start, stop) @ mapping).cpu().double() for start, stop in rows.spans()]
    return torch.cat(parts)
