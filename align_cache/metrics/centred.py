"""Rows less their mean, and the products of them that kernels, spreads and probes are made of."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.errors import NonFiniteError
from align_cache.metrics.arrays import Rows

_NO_VARIATION = 1e-12
"""Variance over squared mean that rounding to float32 alone leaves in equal rows, with room."""


class Centred:
    """A matrix less its column means, read block by block.

    After centring, float32 products lose nothing to an offset that all rows share.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        mean = rows.mean()
        self.mean = mean.to(rows.device, torch.float32)
        """float32 (dim,)."""
        blocks = (self.block(start, stop) for start, stop in rows.spans())
        self.squared_norms = torch.cat([block.square().sum(dim=1).cpu().double() for block in blocks])
        """float64 (n,) on the CPU: the diagonal of the linear kernel."""
        self.varies = float(self.squared_norms.mean()) > _NO_VARIATION * float(mean.square().sum())
        """False where all rows are the same, up to rounding."""

    def block(self, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop``, float32."""
        return self.rows.block(start, stop) - self.mean

    def variances(self) -> torch.Tensor:
        """Return the population variance of every column, float64 (dim,) on the CPU."""
        squares = torch.zeros(self.rows.dim, dtype=torch.float64)
        for start, stop in self.rows.spans():
            squares += self.block(start, stop).square().sum(dim=0).cpu()
        return squares / self.rows.n

    def reordered(self, order: NDArray[np.int64]) -> Centred:
        """Give the same rows in another order; the mean is not computed again."""
        other = copy.copy(self)
        other.rows = replace(self.rows, data=self.rows.data[order])
        other.squared_norms = self.squared_norms[order]
        return other


def varying(rows: Rows) -> Centred:
    """Centre rows of which at least one has to differ.

    Raises
    ------
    NonFiniteError
        The rows do not vary: what is divided by their variation is not defined.
    """
    centred = Centred(rows)
    if not centred.varies:
        raise NonFiniteError(f"the rows of {rows.name} do not vary: the metric is not defined")
    return centred


def cross_product(x: Centred, y: Centred) -> torch.Tensor:
    """XᵀY, float64 (dim_x, dim_y) on the CPU, from float32 products of blocks of rows."""
    product = torch.zeros(x.rows.dim, y.rows.dim, dtype=torch.float64)
    for start, stop in x.rows.spans():
        left = x.block(start, stop)
        right = left if y is x else y.block(start, stop)
        product += (left.T @ right).cpu()
    return product
