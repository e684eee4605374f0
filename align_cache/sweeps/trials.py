"""The trials of a sweep: which run each point asks for, and how it is known again."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from align_cache.config import dotted
from align_cache.errors import ConfigError
from align_cache.settings import FitConfig, SweepConfig, fit_config
from align_cache.sweeps.records import TrialRecord
from align_cache.sweeps.search_space import Point, grid_points, random_points, read_space
from align_cache.training.assemble import Opened
from align_cache.training.scalar_log import require_tensorboard

_NOT_OF_THE_RESULT = ("log", "device", "cuda_graph")
_SHARED = {"log": {"checkpoint_frequency": 0, "viz_frequency": 0}, "evaluation": {"frequency": 0}}
"""Of hundreds of runs the end and the best epoch are kept and measured; a file may ask for more."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of a sweep, and the run that it asks for."""

    key: str
    values: Point
    config: FitConfig


class Trials(Protocol):
    """Where trials come from."""

    n_trials: int

    @property
    def keys(self) -> frozenset[str]:
        """Of all trials that are known so far."""

    def __iter__(self) -> Iterator[Trial]:
        """Give the next trial when it is asked for."""

    def values(self, key: str) -> Point:
        """Return what is tried in a trial that has not ended."""

    def tell(self, record: TrialRecord) -> None:
        """Hear how a trial ended."""


class ListedTrials:
    """The trials of a grid and of points drawn beforehand; all are checked before any work."""

    def __init__(self, config: SweepConfig, cache_dir: Path) -> None:
        self._trials = {trial.key: trial for trial in plan(config, cache_dir)}
        self.n_trials = len(self._trials)

    @property
    def keys(self) -> frozenset[str]:
        """Of all trials."""
        return frozenset(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials.values())

    def values(self, key: str) -> Point:
        """Return what is tried in a trial."""
        return self._trials[key].values

    def tell(self, record: TrialRecord) -> None:
        """Nothing is learned from a trial."""


def plan(config: SweepConfig, cache_dir: Path) -> list[Trial]:
    """List the trials of a grid and of random points, each distinct one once.

    Raises
    ------
    ConfigError
        Names the settings that cannot be used, and the point where.
    CacheError
        If features are missing.
    """
    drawn = (
        random_points(read_space(config.random), config.trials, seed=config.seed) if config.random else [{}]
    )
    opened = Opened(cache_dir)
    trials: dict[str, Trial] = {}
    for point in ({**own, **shared} for shared in drawn for own in grid_points(config.grid)):
        trial = trial_at(point, config, opened)
        trials.setdefault(trial.key, trial)
    return list(trials.values())


def trial_at(point: Point, config: SweepConfig, opened: Opened) -> Trial:
    """Resolve one point to the run that it asks for."""
    try:
        resolved = fit_config(shared=_SHARED, flags={**dotted(config.base), **point})
    except ConfigError as error:
        where = ", ".join(f"{key} = {value}" for key, value in point.items())
        raise ConfigError(f"the trial with {where or 'the shared settings'}: {error.message}") from None
    require_tensorboard(wanted=resolved.log.tensorboard)
    return Trial(_key(resolved, opened), point, resolved)


def _key(config: FitConfig, opened: Opened) -> str:
    """Name a trial by what decides its result: its settings, and the features that they stand for now."""
    data = config.data
    joined = opened.join(data.dataset, data.image_encoder, data.text_encoder, data.reference)
    sets = [features and features.key for features in (joined.image, joined.text, joined.reference)]
    settings = {k: v for k, v in config.model_dump(mode="json").items() if k not in _NOT_OF_THE_RESULT}
    canonical = json.dumps([settings, sets], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
