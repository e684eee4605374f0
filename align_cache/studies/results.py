"""What a study found: mean ± sd over seeds, paired differences to the baseline, and how far to trust them.

Two runs are a pair if they share the seed and the condition: the same images in the same batches, and the
same initial weights. Arrays in, values out; imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist, fmean, stdev
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.judging.comparison import Difference, Spread, difference_of, mean_interval
from align_cache.metrics.interval import jackknife_terms
from align_cache.studies.records import RECALLS, Scores

Place: TypeAlias = tuple[int, int, int]
"""Of a run: its condition, its level, its seed, each as the index in the study's list."""

Verdict: TypeAlias = Literal["better", "better here", "none shown", "worse here", "worse"]

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True, eq=False)
class JudgedTrial:
    """One run of a study."""

    run: str
    images: str
    """Digest of the ids of the images it was judged on."""
    scores: Scores

    def by_image(self, metric: str) -> NDArray[np.float64]:
        """Return what each image contributes to a metric, shape (n_images,); the mean is the metric."""
        if metric == "mean_recall":
            mean: NDArray[np.float64] = self.scores.mean(axis=1)
            return mean
        return self.scores[:, RECALLS.index(metric)]


@dataclass(frozen=True, slots=True)
class Failure:
    """A run of a study that has no numbers."""

    values: Mapping[str, Any]
    error: str


@dataclass(frozen=True, slots=True)
class Overall:
    """The difference of a level to the baseline over all conditions."""

    difference: Difference
    """Of each seed the mean over conditions; the interval is over seeds."""
    image_error: float
    """Standard error of that difference when the images are drawn anew, paired image by image."""

    @property
    def wide_interval(self) -> tuple[float, float] | None:
        """95% interval over seeds and images; None for one seed.

        All seeds judge the same images, whose error no number of seeds makes smaller. It is independent of
        that over seeds, so the two half-widths add in squares.
        """
        if self.difference.interval is None:
            return None
        half = math.hypot(self.difference.interval[1] - self.difference.mean, _Z * self.image_error)
        return self.difference.mean - half, self.difference.mean + half

    @property
    def verdict(self) -> Verdict:
        """``better`` or ``worse`` where both intervals say so; ``here`` where the one over seeds alone does.

        The latter holds on the images that were judged, and may not on others.
        """
        narrow, wide = side(self.difference.interval), side(self.wide_interval)
        if narrow == 0:
            return "none shown"
        if narrow > 0:
            return "better" if wide > 0 else "better here"
        return "worse" if wide < 0 else "worse here"


@dataclass(frozen=True, slots=True)
class Tally:
    """How many intervals exclude zero, and on which side of it they lie."""

    n: int
    above: int
    below: int

    @property
    def by_chance(self) -> float:
        """How many would on average if no level differed from the baseline: 5%."""
        return 0.05 * self.n


@dataclass(frozen=True)
class Study:
    """A study that was run.

    Parameters
    ----------
    levels, conditions, seeds : sequences
        Values of the factor; what else the grid sets, one mapping a condition; seeds.
    metrics : sequence of str
        Of :data:`~align_cache.studies.records.RECALLS`, or ``mean_recall``, their mean.
    trials : mapping of place to JudgedTrial
        A failed run has no place.
    sizes : sequence of (n_images, n_captions)
        Of the split; several only where conditions are of several datasets.
    """

    name: str
    factor: str
    baseline: Any
    levels: Sequence[Any]
    conditions: Sequence[Mapping[str, Any]]
    seeds: Sequence[int]
    metrics: Sequence[str]
    split: str
    trials: Mapping[Place, JudgedTrial]
    failed: Sequence[Failure]
    sizes: Sequence[tuple[int, int]]
    untrained: Sequence[str]

    @property
    def others(self) -> list[int]:
        """Places of the levels that are compared with the baseline."""
        return [place for place in range(len(self.levels)) if place != self._base]

    def spread(self, metric: str, condition: int, level: int) -> Spread | None:
        """Mean ± sd of a metric over seeds; None where every run failed."""
        cells = ((condition, level, seed) for seed in range(len(self.seeds)))
        values = [self._values[metric][cell] for cell in cells if cell in self.trials]
        if not values:
            return None
        several = len(values) > 1
        return Spread(fmean(values), stdev(values) if several else None, len(values),
                      mean_interval(values) if several else None)  # fmt: skip

    def paired(self, metric: str, condition: int, level: int) -> dict[int, float]:
        """Level less baseline under one condition, by the place of the seed; both runs have to be there."""
        values, found = self._values[metric], {}
        for seed in range(len(self.seeds)):
            own, base = (condition, level, seed), (condition, self._base, seed)
            if own in values and base in values:
                found[seed] = values[own] - values[base]
        return found

    def difference(self, metric: str, condition: int, level: int) -> Difference | None:
        """Mean of the paired differences under one condition; None where no seed has both runs."""
        values = list(self.paired(metric, condition, level).values())
        return difference_of(values) if values else None

    def overall(self, metric: str, level: int) -> Overall | None:
        """Level less baseline, pooled over conditions; None where no seed has every run.

        The runs of one seed share weights and images across conditions, so they are averaged first and the
        seeds are what is counted. A seed that lacks a run of either level under any condition is left out.
        """
        by_condition = [self.paired(metric, place, level) for place in range(len(self.conditions))]
        whole = sorted(set.intersection(*(set(each) for each in by_condition)))
        if not whole:
            return None
        values = [fmean(each[seed] for each in by_condition) for seed in whole]
        return Overall(difference_of(values), self._image_error(metric, level, whole))

    def tally(self) -> Tally:
        """Count the intervals over seeds of all metrics, conditions and levels that exclude zero."""
        return _counted(
            self.difference(metric, condition, level)
            for metric in self.metrics
            for condition in range(len(self.conditions))
            for level in self.others
        )

    def overall_tally(self) -> Tally:
        """Count those of the differences that are pooled over conditions."""
        found = (self.overall(metric, level) for metric in self.metrics for level in self.others)
        return _counted(None if each is None else each.difference for each in found)

    def error_of_one_run(self, metric: str) -> float:
        """Return the standard error of one run's metric if the images were drawn anew; mean over runs."""
        return fmean(_norm(jackknife_terms(trial.by_image(metric))) for trial in self.trials.values())

    def _image_error(self, metric: str, level: int, seeds: Sequence[int]) -> float:
        """Measure the error over images of the mean difference; other images are independent."""
        by_images: dict[str, list[NDArray[np.float64]]] = {}
        for condition in range(len(self.conditions)):
            for seed in seeds:
                own, base = self.trials[condition, level, seed], self.trials[condition, self._base, seed]
                gain = own.by_image(metric) - base.by_image(metric)  # (n_images,)
                by_images.setdefault(own.images, []).append(gain)
        total = len(self.conditions) * len(seeds)
        shares = ((len(gains) / total, np.mean(gains, axis=0)) for gains in by_images.values())
        return math.hypot(*(share * _norm(jackknife_terms(mean)) for share, mean in shares))

    @property
    def _base(self) -> int:
        return list(self.levels).index(self.baseline)

    @cached_property
    def _values(self) -> dict[str, dict[Place, float]]:
        return {
            metric: {place: float(trial.by_image(metric).mean()) for place, trial in self.trials.items()}
            for metric in self.metrics
        }


def _counted(found: Iterable[Difference | None]) -> Tally:
    sides = [side(each.interval) for each in found if each is not None and each.interval is not None]
    return Tally(len(sides), sides.count(1), sides.count(-1))


def _norm(terms: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(terms))


def side(bounds: tuple[float, float] | None) -> Literal[-1, 0, 1]:
    """Say on which side of zero an interval lies; 0: on both, or there is none."""
    if bounds is None:
        return 0
    return 1 if bounds[0] > 0 else -1 if bounds[1] < 0 else 0
