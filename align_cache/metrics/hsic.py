"""The Hilbert-Schmidt independence criterion of two linear kernels, without an n x n matrix of many items.

Estimator without bias: Song et al. 2012. All values here are n (n - 3) times that estimate, or the plain
sum for the biased one: CKA is a ratio in which the factor cancels. Centring adds
f_i + f_j to a kernel, which changes neither estimate, and makes its rows sum to zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.metrics.centred import Centred, cross_product
from align_cache.metrics.neighbours import BLOCK_ROWS


def biased_hsic(x: Centred, y: Centred) -> float:
    """Σ_ij K_ij L_ij = ‖XᵀY‖²_F of the centred kernels, from the cheaper side."""
    n, dim_x, dim_y = x.rows.n, x.rows.dim, y.rows.dim
    if n * (dim_x + dim_y) >= dim_x * dim_y:
        return float(cross_product(x, y).square().sum())
    left, right = x.block(0, n), y.block(0, n)  # fewer rows than dimensions: the kernels are the smaller side
    return float(((left @ left.T).double() * (right @ right.T).double()).sum())


def unbiased_hsic(x: Centred, y: Centred) -> float:
    """Estimate of Song et al. 2012 times n (n - 3).

    With K̃, L̃ the kernels without their diagonals p_i = |x_i|² and q_i = |y_i|²:
    tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1 / ((n−1)(n−2)) − 2/(n−2) · 1ᵀK̃L̃1. Rows sum to zero, so K̃1 = −p, L̃1 = −q, and this is
    ‖XᵀY‖² − p·q + Σp Σq / ((n−1)(n−2)) − 2/(n−2) · p·q: exact, through products of dim x dim.
    """
    return _without_bias(biased_hsic(x, y), x.squared_norms, y.squared_norms)


def reordered_hsic(x: Centred, y: Centred, orders: Iterable[NDArray[np.int64]]) -> Iterator[float]:
    """Give :func:`unbiased_hsic` of x and of y's rows in each order.

    Up to the side of one tile the kernels are held and reordered, O(n²) instead of O(n · dim_x · dim_y) for
    each order; beyond it the products are made again.
    """
    if x.rows.n > BLOCK_ROWS:
        yield from (unbiased_hsic(x, y.reordered(order)) for order in orders)
        return
    kernel_x, kernel_y = (rows @ rows.T for rows in (x.block(0, x.rows.n), y.block(0, y.rows.n)))
    for order in orders:
        index = torch.from_numpy(order).to(kernel_y.device)
        common = (kernel_x * kernel_y[index][:, index]).sum(dim=1)  # float32 sums stay short
        yield _without_bias(float(common.cpu().double().sum()), x.squared_norms, y.squared_norms[order])


def _without_bias(biased: float, p: torch.Tensor, q: torch.Tensor) -> float:
    """Song's estimate from the biased one and the diagonals of both kernels."""
    n, shared, totals = len(p), float(p @ q), float(p.sum() * q.sum())
    return biased - shared + totals / ((n - 1) * (n - 2)) - 2 * shared / (n - 2)


def leave_one_out_hsic(x: Centred, y: Centred) -> torch.Tensor:
    """:func:`unbiased_hsic` of the other n - 1 items times its factor (n−1)(n−4), float64 (n,), exact.

    Each of the three terms loses what item i brought: with c_i = Σ_j K̃_ij L̃_ij the trace loses 2 c_i,
    the totals lose 2 (K̃1)_i = −2 p_i, and 1ᵀK̃L̃1 = Σ_j (K̃1)_j (L̃1)_j loses item i in
    both places.
    """
    n, p, q = x.rows.n, x.squared_norms, y.squared_norms
    product = cross_product(x, y)  # (dim_x, dim_y)
    xq, yp = _weighted_sum(x, q), _weighted_sum(y, p)
    common, to_q, to_p = (torch.empty(n, dtype=torch.float64) for _ in range(3))
    fast = product.to(x.rows.device, torch.float32)
    for start, stop in x.rows.spans():
        left, right = x.block(start, stop), y.block(start, stop)
        common[start:stop] = ((left @ fast) * right).sum(dim=1).cpu()
        to_q[start:stop] = (left @ xq.to(left)).cpu()
        to_p[start:stop] = (right @ yp.to(right)).cpu()
    shared = p * q
    common -= shared
    kernel_l, kernel_k = shared - to_q, shared - to_p  # K̃(L̃1) and L̃(K̃1), per item
    trace = float(product.square().sum() - shared.sum()) - 2 * common
    totals = (2 * p - p.sum()) * (2 * q - q.sum())
    chain = shared.sum() - shared - kernel_l - kernel_k + common
    return trace + totals / ((n - 2) * (n - 3)) - 2 / (n - 3) * chain


def _weighted_sum(x: Centred, weights: torch.Tensor) -> torch.Tensor:
    """Σ_i weights_i x_i, float64 (dim,) on the CPU."""
    total = torch.zeros(x.rows.dim, dtype=torch.float64)
    for start, stop in x.rows.spans():
        block = x.block(start, stop)
        total += (weights[start:stop].to(block) @ block).cpu()
    return total
