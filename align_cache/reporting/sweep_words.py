"""How a sweep's score is called and written, and what it was measured on, in tables and figures alike."""

from __future__ import annotations

from align_cache.reporting.sweep_data import SweepData, Tried
from align_cache.reporting.wording import NOT_MEASURED, count
from align_cache.run_records import dig
from align_cache.sweeps.records import RankBy


def score_name(rank_by: RankBy) -> str:
    """Return what the sweep is ranked by, with its unit."""
    return "mean recall, %" if rank_by == "mean_recall" else "validation loss"


def scale(rank_by: RankBy) -> float:
    """Return what a score is multiplied by to be shown."""
    return 100.0 if rank_by == "mean_recall" else 1.0


def shown_score(rank_by: RankBy, mean: float | None, sd: float | None = None) -> str:
    """Return a score as it is shown: ``mean``, or ``mean ± sd``."""
    if mean is None:
        return NOT_MEASURED
    digits = 1 if rank_by == "mean_recall" else 3
    values = [mean] if sd is None else [mean, sd]
    return " ± ".join(f"{scale(rank_by) * value:.{digits}f}" for value in values)


def definition(rank_by: RankBy) -> str:
    """Return what the score is."""
    return "mean recall: of R@1, R@5 and R@10, both ways; " if rank_by == "mean_recall" else ""


def where(sweep: SweepData) -> str:
    """Say what the scores were measured on."""
    sizes = {_size(trial) for trial in sweep.trials if trial.measured}
    known = " or ".join(sorted(sizes)) if sizes else f"N {NOT_MEASURED}: the runs are gone"
    return f"validation split, {known}"


def neighbours(sweep: SweepData) -> str:
    """Say what the alignment was measured on."""
    sizes = {(trial.measured.get("n"), trial.measured.get("k")) for trial in sweep.trials if trial.measured}
    return " or ".join(f"N = {count(n)} images, k = {count(k)}" for n, k in sorted(sizes)) or NOT_MEASURED


def untrained_key(sweep: SweepData) -> list[str]:
    """Return the line that every figure of untrained encoders carries; none where all are trained."""
    return [f"UNTRAINED encoders: {', '.join(sweep.untrained)}"] if sweep.untrained else []


def seeds_in_words(sweep: SweepData) -> str:
    """Say how much of a difference a seed alone makes, or that it is not known."""
    if sweep.seed_sd is None:
        return "one seed each: how much of a difference a seed alone makes was not measured"
    return f"over seeds alone the standard deviation is {seed_difference(sweep)}, pooled over configurations"


def seed_difference(sweep: SweepData) -> str:
    """Return the standard deviation over seeds with its unit."""
    sd, unit = sweep.seed_sd, " points" if sweep.rank_by == "mean_recall" else ""
    return NOT_MEASURED if sd is None else f"{scale(sweep.rank_by) * sd:.2g}{unit}"


def _size(trial: Tried) -> str:
    images = dig(trial.measured, "retrieval", "image_to_text", "n_queries")
    captions = dig(trial.measured, "retrieval", "image_to_text", "n_candidates")
    return f"N = {count(images)} images, {count(captions)} captions"
