"""Stage 2, many runs: every point of a sweep trained once, in processes on a CPU, in one pass on a GPU."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from align_cache.config import to_toml
from align_cache.files import publish_text
from align_cache.lock import holding
from align_cache.runtime import resolve_device
from align_cache.settings import SweepConfig
from align_cache.sweeps.records import TrialRecord, append_trial, begun_runs, trials_of
from align_cache.sweeps.search_space import read_space
from align_cache.sweeps.trials import ListedTrials, Trials, trial_at
from align_cache.sweeps.workers import Outcome, Task, in_processes, in_this_process
from align_cache.training.assemble import Opened


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a sweep stands."""

    n_trials: int
    ended: Sequence[TrialRecord]
    """In this call or before."""


OnProgress = Callable[[Standing], None]


def sweep(
    config: SweepConfig,
    *,
    cache_dir: Path = Path("cache"),
    on_progress: OnProgress | None = None,
    command: str | None = None,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
) -> Path:
    """Train every trial that is not trained yet.

    Parameters
    ----------
    config : SweepConfig
    cache_dir : Path
    on_progress : callable, optional
        Told at the start, and whenever a trial ended.
    command : str, optional
        The command line, recorded with each run.
    executor : {"local", "ray"}
        Where trials are trained: here, or on the nodes of a Ray cluster.
    ray_address : str, optional
        Of that cluster, or ``auto``; None: one on this machine.

    Returns
    -------
    Path of the sweep's folder; ``trials.jsonl`` there says how each trial ended.

    Raises
    ------
    AlignCacheError
        Settings that cannot be used, features that are not there, another process at the same sweep. A trial
        that fails is marked, and the others go on.
    """
    folder = cache_dir / "sweeps" / config.name
    folder.mkdir(parents=True, exist_ok=True)
    with holding(folder / "sweep"):
        trials: Trials = (
            _tpe(config, cache_dir, folder) if config.sampler == "tpe" else ListedTrials(config, cache_dir)
        )
        publish_text(folder / "sweep.toml", to_toml(config))

        def tell() -> None:
            ended = [record for record in trials_of(folder) if record.key in trials.keys]
            if on_progress is not None:
                on_progress(Standing(trials.n_trials, ended))

        tell()
        tasks = _tasks(trials, config, folder, cache_dir, command)
        if executor == "ray":
            from align_cache.sweeps.on_ray import on_ray

            ending = on_ray(tasks, config, cache_dir, address=ray_address)
        else:
            ending = _outcomes(tasks, config, cache_dir)
        with closing(ending) as outcomes:  # stopped here, its processes end
            for outcome in outcomes:
                record = TrialRecord(values=trials.values(outcome.key), **_fields(outcome))
                append_trial(folder, record)
                trials.tell(record)
                tell()
    return folder


def _tasks(
    trials: Trials, config: SweepConfig, folder: Path, cache_dir: Path, command: str | None
) -> Iterator[Task]:
    """Give the trials that are still to be trained, and the runs in which they were begun."""
    done = {
        record.key: record
        for record in trials_of(folder)
        if record.status == "finished" or not config.retry_failed
    }
    begun = begun_runs(cache_dir, config.name)
    for trial in trials:
        if trial.key in done:
            trials.tell(done[trial.key])
        else:
            yield Task(trial.key, trial.config, begun.get(trial.key), config.name, command)


def _outcomes(tasks: Iterator[Task], config: SweepConfig, cache_dir: Path) -> Generator[Outcome]:
    device = resolve_device(str(config.base.get("device", "auto")))
    if device.type != "cpu" or (config.together or 1) > 1:
        return in_this_process(tasks, Opened(cache_dir, whole=True), together=config.together)
    return in_processes(tasks, cache_dir, jobs=config.jobs)


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "scores": outcome.scores or {}}


def _tpe(config: SweepConfig, cache_dir: Path, folder: Path) -> Trials:
    from align_cache.sweeps.tpe import TpeTrials

    opened = Opened(cache_dir)
    return TpeTrials(
        read_space(config.random),
        n_trials=config.trials,
        rank_by=config.rank_by,
        seed=config.seed,
        journal=folder / "optuna.journal",
        at=lambda point: trial_at(point, config, opened),
    )
