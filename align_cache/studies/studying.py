"""A study: its sweep trained, each of its runs judged once, and the outcome put together.

Drives two stages that know nothing of each other: training (:mod:`~align_cache.sweeps.sweeping`) and judging.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from align_cache.config import to_toml
from align_cache.errors import ConfigError, RunError, UsageError
from align_cache.files import publish_text
from align_cache.judging.run_features import choose_split
from align_cache.lock import holding
from align_cache.results import find_run
from align_cache.settings import StudyConfig
from align_cache.splits import canonical_split
from align_cache.studies.judging import judge_retrieval
from align_cache.studies.records import Judgement, append_judgement, judgements_of, scores_of
from align_cache.studies.results import Failure, JudgedTrial, Place, Study
from align_cache.sweeps.records import TrialRecord, trials_of
from align_cache.sweeps.search_space import grid_points
from align_cache.sweeps.sweeping import OnProgress, sweep
from align_cache.sweeps.trials import Trial, plan
from align_cache.training.assemble import Opened


def study(
    config: StudyConfig,
    *,
    cache_dir: Path = Path("cache"),
    on_sweep: OnProgress | None = None,
    on_judged: Callable[[int, int], None] | None = None,
    command: str | None = None,
) -> Study:
    """Train the runs of a study that are not trained, judge those that are not judged, compare.

    Parameters
    ----------
    config : StudyConfig
    cache_dir : Path
    on_sweep : callable, optional
        Told at the start, and whenever a run ended.
    on_judged : callable (done, total), optional
        Told whenever a run was judged.
    command : str, optional
        The command line, recorded with each run.

    Returns
    -------
    Study
        Its runs and judgements lie in ``sweeps/<name>`` and ``studies/<name>`` of the cache.

    Raises
    ------
    AlignCacheError
        Settings that cannot be used, features or a split that are not there, another process at the same
        study, or no run that finished. A run that fails is counted, and the others go on.
    """
    folder, planned = folder_of(config, cache_dir), planned_trials(config, cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with holding(folder / "study"):
        publish_text(folder / "study.toml", to_toml(config))
        swept = sweep(config.sweep, cache_dir=cache_dir, on_progress=on_sweep, command=command)
        ended = {record.key: record for record in trials_of(swept)}
        finished = [each for key in planned if (each := ended[key]).status == "finished"]
        if not finished:
            first = ended[next(iter(planned))].error
            raise RunError(f"all {len(planned)} runs of the study failed, the first: {first}",
                           hint="--retry-failed trains them again")  # fmt: skip
        judged = _judged(finished, config.split, folder, cache_dir, on_judged or (lambda done, total: None))
        return _put_together(config, planned, ended, judged, folder)


def folder_of(config: StudyConfig, cache_dir: Path) -> Path:
    """Return the folder of a study."""
    return cache_dir / "studies" / config.name


def planned_trials(config: StudyConfig, cache_dir: Path) -> dict[str, Trial]:
    """List the runs of a study by their key; all are checked before any work.

    Raises
    ------
    ConfigError
        Names the settings that cannot be used; also where two points of the grid are one and the same run.
    UsageError
        If a dataset does not have the study's split.
    CacheError
        If features are missing.
    """
    trials = plan(config.sweep, cache_dir)
    n_points = len(grid_points(config.grid))
    if len(trials) < n_points:
        raise ConfigError(f"the grid has {n_points} points and only {len(trials)} different runs: "
                          "two values of a setting mean the same")  # fmt: skip
    opened = Opened(cache_dir)
    for trial in {trial.config.data.dataset: trial for trial in trials}.values():
        data = trial.config.data
        joined = opened.join(data.dataset, data.image_encoder, data.text_encoder, data.reference)
        choose_split(joined, trial.config, config.split)
    return {trial.key: trial for trial in trials}


def _judged(
    finished: list[TrialRecord], split: str, folder: Path, cache_dir: Path, tell: Callable[[int, int], None]
) -> dict[str, Judgement]:
    """Judge the runs that are not judged yet; give the judgements of all, by run."""
    known = judgements_of(folder, canonical_split(split))
    for done, trial in enumerate(finished, start=1):
        assert trial.run is not None  # it has finished
        if trial.run not in known:
            run = find_run(trial.run, cache_dir=cache_dir)
            judgement, scores = judge_retrieval(run, split, cache_dir=cache_dir)
            append_judgement(folder, judgement, scores)
            known[trial.run] = judgement
        tell(done, len(finished))
    return known


def _put_together(
    config: StudyConfig,
    planned: Mapping[str, Trial],
    ended: Mapping[str, TrialRecord],
    judged: Mapping[str, Judgement],
    folder: Path,
) -> Study:
    """Give each run that was judged its place: condition, level and seed."""
    rest = {key: values for key, values in config.grid.items() if key not in (config.factor, "seed")}
    conditions, levels, seeds = grid_points(rest), config.levels, list(config.grid["seed"])
    trials: dict[Place, JudgedTrial] = {}
    failed, used = [], []
    for key, trial in planned.items():
        record, values = ended[key], trial.values
        judgement = judged.get(record.run or "")
        if judgement is None:
            failed.append(Failure(values, record.error or "failed"))
            continue
        condition = conditions.index({name: values[name] for name in rest})
        place = (condition, levels.index(values[config.factor]), seeds.index(values["seed"]))
        trials[place] = JudgedTrial(judgement.run, judgement.images, scores_of(folder, judgement))
        used.append(judgement)
    _refuse_other_images(config.factor, trials)
    return Study(
        name=config.name,
        factor=config.factor,
        baseline=config.baseline,
        levels=levels,
        conditions=conditions,
        seeds=seeds,
        metrics=config.metrics,
        split=used[0].split,
        trials=trials,
        failed=failed,
        sizes=sorted({(each.n_images, each.n_captions) for each in used}),
        untrained=list(dict.fromkeys(name for each in used for name in each.untrained)),
    )


def _refuse_other_images(factor: str, trials: Mapping[Place, JudgedTrial]) -> None:
    images: dict[int, str] = {}
    for (condition, _, _), trial in trials.items():
        if images.setdefault(condition, trial.images) != trial.images:
            raise UsageError(
                f"under one condition runs were judged on different images: levels of {factor} have no pairs"
            )
