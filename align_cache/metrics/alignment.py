"""Kernel alignment: how alike the geometries of two representations of the same items are.

The one place to import the alignment metrics from, and their registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from align_cache.metrics.kernel_alignment import cka, cka_rbf, cka_scores, cknna
from align_cache.metrics.neighbour_alignment import (
    cycle_knn,
    cycle_knn_scores,
    edit_distance_knn,
    edit_distance_knn_scores,
    lcs_knn,
    lcs_knn_scores,
    mutual_knn,
    mutual_knn_scores,
)
from align_cache.metrics.neighbours import Neighbours, nearest_neighbours
from align_cache.metrics.svcca import svcca


@dataclass(frozen=True, slots=True)
class AlignmentMetric:
    """One alignment metric as a program finds it by name."""

    function: Callable[..., float]
    """``function(a, b)``, or ``function(a, b, k=k)`` where ``needs_k``."""
    needs_k: bool
    """It works on neighbour lists: it takes ``k``, and ``Neighbours`` in place of rows."""
    scores: Callable[..., NDArray[np.float64]] | None = None
    """What each item contributes, called as ``function``; None where the metric has no such terms."""
    chance: Callable[[int, int], float] | None = None
    """Value that independent representations give, from n and k; None where only a permutation null tells."""


ALIGNMENT_METRICS: Mapping[str, AlignmentMetric] = MappingProxyType({
    "mutual_knn": AlignmentMetric(mutual_knn, True, mutual_knn_scores, chance=lambda n, k: k / (n - 1)),
    "cka": AlignmentMetric(cka, False, cka_scores, chance=lambda n, k: 0.0),
    "cka_rbf": AlignmentMetric(cka_rbf, False),
    "cknna": AlignmentMetric(cknna, True),
    "cycle_knn": AlignmentMetric(cycle_knn, True, cycle_knn_scores),
    "lcs_knn": AlignmentMetric(lcs_knn, True, lcs_knn_scores),
    "edit_distance_knn": AlignmentMetric(edit_distance_knn, True, edit_distance_knn_scores),
    "svcca": AlignmentMetric(svcca, False),
})  # fmt: skip

__all__ = [
    "ALIGNMENT_METRICS",
    "AlignmentMetric",
    "Neighbours",
    "cka",
    "cka_rbf",
    "cka_scores",
    "cknna",
    "cycle_knn",
    "cycle_knn_scores",
    "edit_distance_knn",
    "edit_distance_knn_scores",
    "lcs_knn",
    "lcs_knn_scores",
    "mutual_knn",
    "mutual_knn_scores",
    "nearest_neighbours",
    "svcca",
]
