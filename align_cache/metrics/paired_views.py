"""Views of the same items compared in pairs by any alignment metric; neighbours are searched once a view."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from align_cache.metrics.alignment import ALIGNMENT_METRICS, nearest_neighbours
from align_cache.metrics.interval import estimate
from align_cache.metrics.significance import permutation_null

Scores = dict[str, NDArray[np.float64]]
"""What each item contributes, float64 (n,), by pair."""

NULL_KEYS = ("chance", "chance_sd", "threshold", "p", "calibrated")
"""What is recorded of a permutation null; value, n, k and the number of shuffles stand elsewhere."""

_T = TypeVar("_T")
_JACKKNIFE_ITEMS = 5


class PairedViews:
    """Pairs of views, by every metric asked for.

    Parameters
    ----------
    views : mapping of name to float tensor, shape (n, dim)
        Unit-norm rows of the same n items.
    pairs : mapping of name to two names of views
    metrics : collection of str
        Names of ``ALIGNMENT_METRICS``.
    k : int
        Neighbours; k < n.

    Raises
    ------
    ShapeError, NonFiniteError
    """

    def __init__(
        self,
        views: Mapping[str, Tensor],
        pairs: Mapping[str, tuple[str, str]],
        *,
        metrics: Collection[str],
        k: int,
    ) -> None:
        self._views, self._pairs, self._metrics, self._k = views, pairs, metrics, k
        searched = {name for pair in pairs.values() for name in pair}
        if not any(ALIGNMENT_METRICS[metric].needs_k for metric in metrics):
            searched = set()
        self._near = {name: nearest_neighbours(views[name], k=k) for name in searched}

    def values(self) -> dict[str, dict[str, float]]:
        """Give every metric of every pair."""
        return {metric: self._each(metric, ALIGNMENT_METRICS[metric].function) for metric in self._metrics}

    def scores(self) -> dict[str, Scores]:
        """Give the per-item terms of the metrics that have them; a jackknife takes five items."""
        n = len(next(iter(self._views.values())))
        return {
            metric: self._each(metric, scores)
            for metric in self._metrics
            if (scores := ALIGNMENT_METRICS[metric].scores) and (metric != "cka" or n >= _JACKKNIFE_ITEMS)
        }

    def null(self, *, permutations: int, seed: int) -> dict[str, dict[str, dict[str, float]]]:
        """Judge every metric of every pair by shuffles of the pair's second view, as JSON can hold it."""
        records = {}
        for metric in self._metrics:
            judge = partial(permutation_null, metric, permutations=permutations, seed=seed)
            records[metric] = {name: {key: getattr(found, key) for key in NULL_KEYS}
                               for name, found in self._each(metric, judge).items()}  # fmt: skip
        return records

    def _each(self, metric: str, function: Callable[..., _T]) -> dict[str, _T]:
        """Call a function of two views, or of their neighbours where the metric works on them."""
        if ALIGNMENT_METRICS[metric].needs_k:
            near, k = self._near, self._k
            return {name: function(near[a], near[b], k=k) for name, (a, b) in self._pairs.items()}
        return {name: function(self._views[a], self._views[b]) for name, (a, b) in self._pairs.items()}


def intervals_of(
    values: Mapping[str, Mapping[str, float]], scores: Mapping[str, Scores]
) -> dict[str, dict[str, list[float]]]:
    """Give the 95% intervals over items, ``[low, high]``, of the metrics that have scores."""
    return {
        metric: {
            pair: list(estimate(values[metric][pair], terms).interval) for pair, terms in by_pair.items()
        }
        for metric, by_pair in scores.items()
    }
