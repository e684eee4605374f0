"""The similarity-structure term: an adapter should leave near what its encoder found near."""

import torch
from torch import Tensor

from align_cache.adapters.pair import unit


def structure_preservation(
    features: Tensor, embeddings: Tensor, *, temperature: Tensor | float, levels: int = 1
) -> Tensor:
    """Compare who is near whom among a batch's features and among their embeddings, over one or more steps.

    Rows are scaled to unit norm and centred; P = softmax of their inner products / temperature, row by row,
    is then a random walk from each item to those near it, and Pˡ where it has come to after l steps:
    ``1/L Σ_{l=1..L} 1/l · mean_i JS(Pˡ_i of the features, Pˡ_i of the embeddings)``.

    Parameters
    ----------
    features : float tensor, shape (…, n, input_dim)
    embeddings : float tensor, shape (…, n, D)
        What an adapter made of the same rows.
    temperature : float or tensor that broadcasts against (…)
        The smaller, the more the nearest rows are all that counts.
    levels : int
        L >= 1.

    Returns
    -------
    float tensor, shape (…), in [0, log 2]: Jensen–Shannon divergences in nats.

    Gröger et al. 2025, arXiv 2506.16895, which adds this term of both modalities. Cost O(n² D + levels · n³).
    """
    step, own_step = (_neighbour_shares(rows, temperature) for rows in (features, embeddings))
    walk, own_walk = step, own_step
    total = _jensen_shannon(walk, own_walk)
    for level in range(2, levels + 1):
        walk, own_walk = walk @ step, own_walk @ own_step
        total = total + _jensen_shannon(walk, own_walk) / level
    return total / levels


def _neighbour_shares(rows: Tensor, temperature: Tensor | float) -> Tensor:
    """Give each row's distribution over the n rows (…, n, n), itself among them."""
    rows = unit(rows)
    rows = rows - rows.mean(-2, keepdim=True)
    scale = temperature[..., None, None] if isinstance(temperature, Tensor) else temperature
    return (rows @ rows.mT / scale).softmax(-1)


def _jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Mean the divergences of the rows of two matrices of distributions (…, n, n): (…)."""
    log_middle = _log((p + q) / 2)
    apart = p * (_log(p) - log_middle) + q * (_log(q) - log_middle)
    return apart.sum(-1).mean(-1) / 2


def _log(p: Tensor) -> Tensor:
    """Take the logarithm, that of an underflowed 0 being large and finite, and so its gradient."""
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()
