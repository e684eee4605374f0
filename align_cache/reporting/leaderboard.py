"""The trials of a sweep as one table, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align_cache.reporting.tables import Table
from align_cache.reporting.wording import percent
from align_cache.sweeps.records import RankBy, TrialRecord, ranked


def leaderboard_table(
    trials: Sequence[TrialRecord], rank_by: RankBy, *, n_trials: int | None = None, limit: int | None = None
) -> Table:
    """Rank trials by what was measured on the validation images at each one's best epoch.

    Parameters
    ----------
    trials : sequence of TrialRecord
    rank_by : {"mean_recall", "val_loss"}
    n_trials : int, optional
        How many there are to be; None: no more than ``trials``.
    limit : int, optional
        Lines at most.
    """
    order = ranked(trials, rank_by)
    tried = list(dict.fromkeys(key for trial in trials for key in trial.values))
    failed = sum(trial.status == "failed" for trial in trials)
    columns = ("#", "run", *tried, "epoch", "val loss", "R@1/5/10 i→t", "R@1/5/10 t→i", "mean recall")
    rows = tuple(
        (str(place), trial.run or "", *(_shown(trial.values.get(key)) for key in tried), *_measured(trial))
        for place, trial in enumerate(order[:limit], start=1)
    )
    title = f"{len(order)} of {n_trials or len(trials)} trials"
    note = f"on the validation images, at each run's best epoch; ranked by {rank_by.replace('_', ' ')}"
    if failed:
        note += f"; {failed} failed"
    return Table(title, columns, rows, note, label_columns=2 + len(tried))


def _measured(trial: TrialRecord) -> tuple[str, ...]:
    i2t, t2i = (
        "/".join(f"{100 * trial.scores[f'{way}_{r}']:.1f}" for r in ("r1", "r5", "r10"))
        for way in ("i2t", "t2i")
    )
    loss, recall = trial.scores["val_loss"], trial.scores["mean_recall"]
    return str(trial.best_epoch), f"{loss:.3f}", i2t, t2i, percent(recall)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
