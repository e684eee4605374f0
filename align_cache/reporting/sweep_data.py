"""Reading a sweep's folder: which settings were tried, and how each configuration did over its seeds.

A configuration is all that decides a run but the seed. Trials record what the sweep set; their runs record
every setting, so that trials of an earlier file, with other shared settings, are not taken for further seeds.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from align_cache.config import dotted
from align_cache.errors import RunError
from align_cache.reporting.tables import Record, chance_recall
from align_cache.results import Run, list_runs
from align_cache.run_records import DIRECTIONS, RECALLS, dig
from align_cache.sweeps.records import RankBy, TrialRecord, measured_at, ranked, trials_of

_NOT_TRIED = ("seed", "device")


@dataclass(frozen=True)
class Tried:
    """One trial with what its run says; where the run is gone, with what the sweep set."""

    record: TrialRecord
    settings: Mapping[str, Any]
    """Dotted, as resolved; ``features.<role>`` names the feature set that was opened."""
    info: Record
    """``run.json``, empty where the run is gone."""
    measured: Record
    """What the run logged at its best epoch, empty where that is not known."""

    @property
    def seed(self) -> int | None:
        """Of the run."""
        found: int | None = self.settings.get("seed")
        return found


@dataclass(frozen=True)
class Configuration:
    """The finished trials that differ in their seed alone, in the order of the seeds."""

    values: Mapping[str, Any]
    """Of the settings that vary."""
    trials: tuple[Tried, ...]

    def mean(self, score: str) -> float:
        """Mean of a score over the seeds."""
        return fmean(self._values(score))

    def sd(self, score: str) -> float | None:
        """Sample standard deviation over the seeds; None for one."""
        return stdev(self._values(score)) if len(self.trials) > 1 else None

    def _values(self, score: str) -> list[float]:
        return [trial.record.scores[score] for trial in self.trials]


@dataclass(frozen=True)
class SweepData:
    """A sweep in memory."""

    folder: Path
    toml: str
    """``sweep.toml`` as it stands."""
    rank_by: RankBy
    trials: tuple[Tried, ...]
    """In the order in which they ended."""
    varying: tuple[str, ...]
    """Settings that are not the same in all trials, the seed aside."""
    configurations: tuple[Configuration, ...]
    """The best first."""

    @property
    def failed(self) -> list[Tried]:
        """Trials without a result."""
        return [trial for trial in self.trials if trial.record.status == "failed"]

    @property
    def best(self) -> Tried | None:
        """The best single trial of the best configuration; None where none has finished."""
        if not self.configurations:
            return None
        records = {trial.record.key: trial for trial in self.configurations[0].trials}
        return records[ranked([trial.record for trial in records.values()], self.rank_by)[0].key]

    @property
    def has_seeds(self) -> bool:
        """Whether a configuration was trained with several seeds."""
        return any(len(configuration.trials) > 1 for configuration in self.configurations)

    @property
    def seed_sd(self) -> float | None:
        """Standard deviation of the score over seeds, pooled over configurations; None with one seed each."""
        several = [each for each in self.configurations if len(each.trials) > 1]
        freedom = sum(len(each.trials) - 1 for each in several)
        squares = sum((each.sd(self.rank_by) or 0.0) ** 2 * (len(each.trials) - 1) for each in several)
        return (squares / freedom) ** 0.5 if freedom else None

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of the encoders with random weights."""
        names = (name for trial in self.trials for name in trial.info.get("untrained") or ())
        return tuple(dict.fromkeys(names))

    @property
    def chance(self) -> float | None:
        """Mean recall of a random order on the best trial's validation images; None where not known."""
        measured = self.best.measured if self.best is not None else None
        ways = [dig(measured, "retrieval", way) for way in DIRECTIONS]
        if None in ways:
            return None
        return fmean(chance_recall(way, k) for way in ways for k in RECALLS)


def read_sweep(folder: Path) -> SweepData:
    """Read a sweep's folder and, as far as they are still there, its runs.

    Parameters
    ----------
    folder : Path
        ``sweeps/<name>`` in a cache.

    Raises
    ------
    RunError
        If no trial of the sweep has ended, or a file is damaged.
    """
    folder = folder.resolve()
    records = trials_of(folder)
    if not records:
        raise RunError(f"{folder} holds no trial that has ended", hint="align-cache sweep --config FILE")
    text, rank_by = _sweep_file(folder / "sweep.toml")
    runs = {run.id: run for run in list_runs(folder.parent.parent)}
    trials = tuple(_tried(record, runs.get(record.run or "")) for record in records)
    varying = _varying(trials)
    return SweepData(folder, text, rank_by, trials, varying, _configurations(trials, varying, rank_by))


def _sweep_file(path: Path) -> tuple[str, RankBy]:
    """Read ``sweep.toml``: as it stands, and what it ranks by."""
    try:
        text = path.read_text(encoding="utf-8")
        rank_by: RankBy = tomllib.loads(text)["rank_by"]
    except (FileNotFoundError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise RunError(f"{path} does not say what the sweep ranks by: {type(error).__name__}",
                       hint="align-cache sweep writes it again") from None  # fmt: skip
    return text, rank_by


def _tried(record: TrialRecord, run: Run | None) -> Tried:
    info = {} if run is None else run.info()
    given = record.values if run is None else dotted(run.config())
    settings = {key: None if value == "none" else value for key, value in given.items()}
    if run is None:
        return Tried(record, settings, {}, {})
    for role in ("image", "text", "reference"):
        if info.get(role):
            settings[f"features.{role}"] = f"{info[role]['encoder']}@{info[role]['key8']}"
    return Tried(record, settings, info, measured_at(run, record.best_epoch))


def _varying(trials: Sequence[Tried]) -> tuple[str, ...]:
    """Return the settings that the sweep set to several values, and others that tell trials apart.

    A preset that comes with a value (the linear adapter's) is part of that value and no setting of its own.
    """
    asked = [key for key in dict.fromkeys(key for trial in trials for key in trial.record.values)
             if key not in _NOT_TRIED]  # fmt: skip
    alike: dict[str, list[Tried]] = {}
    for trial in trials:
        alike.setdefault(_canonical([trial.settings.get(key) for key in asked]), []).append(trial)
    beside = {key for group in alike.values() for key in _differing(group)}
    asked_and_varying = set(_differing(trials))
    return (*(key for key in asked if key in asked_and_varying), *sorted(beside - set(asked)))


def _differing(trials: Iterable[Tried]) -> list[str]:
    """Return the settings, the seed and the log's aside, that have several values among trials."""
    found: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in trial.settings.items():
            found.setdefault(key, set()).add(_canonical(value))
    return [
        key
        for key, values in found.items()
        if len(values) > 1 and key not in _NOT_TRIED and not key.startswith("log.")
    ]


def _configurations(
    trials: Sequence[Tried], varying: Sequence[str], rank_by: RankBy
) -> tuple[Configuration, ...]:
    groups: dict[str, list[Tried]] = {}
    finished = {record.key for record in ranked([trial.record for trial in trials], rank_by)}
    for trial in trials:
        if trial.record.key in finished:
            groups.setdefault(_canonical([trial.settings.get(key) for key in varying]), []).append(trial)
    found = [
        Configuration(
            {key: group[0].settings.get(key) for key in varying},
            tuple(sorted(group, key=lambda trial: trial.seed or 0)),
        )
        for group in groups.values()
    ]
    return tuple(sorted(found, key=lambda each: each.mean(rank_by), reverse=rank_by == "mean_recall"))


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)
