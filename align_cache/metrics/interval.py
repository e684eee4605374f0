"""95% intervals: of a mean of per-item terms, and of a share."""

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


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95% Wilson score interval of a share, ``right`` out of ``n``."""
    share, weight = right / n, _Z * _Z / n
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight * weight / 4) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)
