"""Margins of several seeds put together, with the items' and the seeds' share of the uncertainty."""

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

from align_cache.judging.comparison import Group

BASELINES = ("embeddings", "features")
HYPOTHESES = ("h1", "h2")


@dataclass(frozen=True)
class Pooled:
    """A margin over seeds and items."""

    margin: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        low, high = self.interval
        return "supported" if low > 0 else "not supported" if high < 0 else "undecided"


def pooled(group: Group, baseline: str, metric: str, key: str) -> Pooled:
    """The margin of a group of at least two seeds.

    The seeds judge the same items, so their errors over items go together: the half-widths are averaged,
    not divided by √seeds. The half-width of the mean over seeds is independent of them and adds in squares.
    """
    tests = [run.run.results()[-1]["hypotheses"][baseline][metric][key] for run in group.runs]
    values = [test["margin"] for test in tests]
    margin = fmean(values)
    of_seeds = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    below, above = (fmean(abs(test["interval"][end] - test["margin"]) for test in tests) for end in (0, 1))
    return Pooled(margin, (margin - math.hypot(below, of_seeds), margin + math.hypot(above, of_seeds)))
