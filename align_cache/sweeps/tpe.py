"""Points proposed by optuna's tree-structured Parzen estimator, from the trials that ended before.

The study lies in the sweep's folder, in a journal that several processes may share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_cache.runtime import require_extra
from align_cache.sweeps.records import RankBy, TrialRecord
from align_cache.sweeps.search_space import Choice, Interval, Point, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial as Proposal

    from align_cache.sweeps.trials import Trial


class TpeTrials:
    """Trials proposed one by one, until as many as wanted have ended.

    Parameters
    ----------
    space : mapping
        Setting to what may be drawn.
    n_trials : int
    rank_by : {"mean_recall", "val_loss"}
        What is maximised, or minimised.
    seed : int
    journal : Path
        File of the study, new or gone on with.
    at : callable
        Resolves a point to its trial.

    Raises
    ------
    UsageError
        If optuna is not installed.
    """

    def __init__(
        self,
        space: Space,
        *,
        n_trials: int,
        rank_by: RankBy,
        seed: int,
        journal: Path,
        at: Callable[[Point], Trial],
    ) -> None:
        self._space, self._rank_by, self._at = space, rank_by, at
        self.n_trials = n_trials
        self._study = _study(journal, rank_by, seed)
        self._open: dict[str, tuple[Proposal, Trial]] = {}

    @property
    def keys(self) -> frozenset[str]:
        """Of the trials that were proposed so far, in this call or before."""
        told = (trial.user_attrs.get("key") for trial in self._study.get_trials(deepcopy=False))
        return frozenset(key for key in told if key)

    def __iter__(self) -> Iterator[Trial]:
        """Propose the next trial when it is asked for, from all that was told until then."""
        from optuna.trial import TrialState

        while self._n_told() + len(self._open) < self.n_trials:
            proposal = self._study.ask()
            trial = self._at({key: _suggest(proposal, key, domain) for key, domain in self._space.items()})
            proposal.set_user_attr("key", trial.key)
            if trial.key in self._open:  # proposed twice while it is being trained
                self._study.tell(proposal, state=TrialState.PRUNED)
                continue
            self._open[trial.key] = (proposal, trial)
            yield trial

    def values(self, key: str) -> Point:
        """Return what is tried in a trial that was proposed and has not ended."""
        return self._open[key][1].values

    def tell(self, record: TrialRecord) -> None:
        """Learn from a trial that ended."""
        from optuna.trial import TrialState

        proposal, _ = self._open.pop(record.key)
        if record.status == "finished":
            self._study.tell(proposal, record.scores[self._rank_by])
        else:
            self._study.tell(proposal, state=TrialState.FAIL)

    def _n_told(self) -> int:
        return sum(trial.state.is_finished() for trial in self._study.get_trials(deepcopy=False))


def _study(journal: Path, rank_by: RankBy, seed: int) -> Study:
    require_extra("optuna", extra="optuna", needed_for="sampler tpe")
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name=journal.parent.name,
        direction="maximize" if rank_by == "mean_recall" else "minimize",
        load_if_exists=True,
    )
    # A study that is gone on with must not begin by proposing its first points again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    return study


def _suggest(proposal: Proposal, key: str, domain: Choice | Interval) -> Any:
    if isinstance(domain, Choice):
        # optuna keeps numbers, strings and None; anything else is chosen by its place in the list
        plain = all(value is None or isinstance(value, (bool, int, float, str)) for value in domain.values)
        if plain:
            return proposal.suggest_categorical(key, list(domain.values))
        return domain.values[proposal.suggest_categorical(key, list(range(len(domain.values))))]
    if domain.whole:
        return proposal.suggest_int(key, int(domain.low), int(domain.high), log=domain.log)
    return proposal.suggest_float(key, domain.low, domain.high, log=domain.log)
