"""95% intervals: of a mean of per-item terms, and of a share, drawn item by item or in clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from align_cache.errors import NonFiniteError, ShapeError

_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its standard error; the error is taken as normal."""

    value: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval."""
        return self.value - _Z * self.error, self.value + _Z * self.error

    @property
    def p(self) -> float:
        """One-sided: the chance of a value as large if the true one were zero."""
        if self.error == 0:
            return 0.0 if self.value > 0 else 1.0
        return _NORMAL.cdf(-self.value / self.error)


def estimate(value: float, scores: ArrayLike) -> Estimate:
    """Give a metric its standard error from what each item contributes to it.

    Parameters
    ----------
    value : float
        The metric.
    scores : float array, shape (n,), n >= 2
        Per-item terms whose mean is the metric, or jackknife pseudo-values. The error is their standard
        deviation over √n: items count as independent, though neighbour lists of near items share members.

    Raises
    ------
    ShapeError, NonFiniteError
    """
    terms = np.asarray(scores, dtype=np.float64)
    if terms.ndim != 1 or len(terms) < 2:
        raise ShapeError(f"scores have shape {terms.shape}; expected (n,) with n at least 2")
    if not (math.isfinite(value) and np.isfinite(terms).all()):
        raise NonFiniteError("the value or the scores hold NaN or infinity")
    return Estimate(float(value), float(terms.std(ddof=1)) / math.sqrt(len(terms)))


def wilson_interval(right: float, n: float) -> tuple[float, float]:
    """95% Wilson score interval of a share, ``right`` out of ``n``; both may be effective numbers."""
    share, weight = right / n, _Z * _Z / n
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight * weight / 4) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_interval(hits: ArrayLike, cluster: ArrayLike) -> tuple[float, float]:
    """95% interval of a share of draws that come in clusters, as the captions of one image do.

    Parameters
    ----------
    hits : bool array, shape (n,), n >= 1
        Whether each draw counts.
    cluster : integer array, shape (n,)
        The cluster each draw belongs to; clusters are independent, their members need not be.

    Returns
    -------
    (low, high) : Wilson's interval at the effective number of draws, share · (1 − share) over the variance
    of the share between clusters, n at most. Clusters of one draw give Wilson's own interval. Where
    clusters do not differ, as when all draws hit or none does, each cluster counts as one draw.

    Raises
    ------
    ShapeError
    """
    right, names = np.asarray(hits, dtype=np.float64), np.asarray(cluster)
    if right.ndim != 1 or right.shape != names.shape or not len(right):
        raise ShapeError(f"hits have shape {right.shape} and clusters {names.shape}; expected (n,) for both")
    _, member = np.unique(names, return_inverse=True)
    size = np.bincount(member)
    share = float(right.mean())
    excess = np.bincount(member, right) - share * size  # hits of each cluster beyond its due
    variance = float(excess @ excess) / len(right) ** 2
    draws = min(len(right), share * (1 - share) / variance) if variance > 0 else len(size)
    return wilson_interval(share * draws, draws)
