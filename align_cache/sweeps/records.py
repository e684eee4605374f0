"""The folder of a sweep: what was tried, and how each trial ended. Imports no torch: the report reads it.

<cache>/sweeps/<name>/sweep.toml  trials.jsonl  report.html  figures/
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from align_cache.results import Record, Run, append_line, list_runs, read_lines

RankBy: TypeAlias = Literal["mean_recall", "val_loss"]
Status: TypeAlias = Literal["finished", "failed"]


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """How one trial ended."""

    key: str
    """Of its resolved settings and its feature sets."""
    values: Mapping[str, Any]
    """What the sweep set."""
    status: Status
    run: str | None
    """Its run's id; None where it failed before it became one."""
    error: str | None
    best_epoch: int | None
    duration_s: float
    scores: Mapping[str, float]
    """Of its best epoch, on the validation images; empty where it failed."""


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder is a sweep's."""
    return (folder / "sweep.toml").is_file()


def trials_of(folder: Path) -> list[TrialRecord]:
    """Read the trials of a sweep, the last word on each, in the order they first ended."""
    latest = {line["key"]: TrialRecord(**line) for line in read_lines(folder / "trials.jsonl")}
    return list(latest.values())


def append_trial(folder: Path, trial: TrialRecord) -> None:
    """Write down how a trial ended."""
    append_line(folder / "trials.jsonl", asdict(trial))


def begun_runs(cache_dir: Path, sweep: str) -> dict[str, str]:
    """Return the runs of a sweep that were begun and did not end, by the key of their trial."""
    return {
        info["trial"]: info["id"]
        for run in list_runs(cache_dir)
        if (info := run.info()).get("sweep") == sweep and info["status"] in ("running", "interrupted")
    }


def ranked(trials: Sequence[TrialRecord], by: RankBy) -> list[TrialRecord]:
    """Sort finished trials, the best first; failed ones are left out."""
    finished = [trial for trial in trials if trial.status == "finished" and by in trial.scores]
    return sorted(finished, key=lambda trial: trial.scores[by], reverse=by == "mean_recall")


def measured_at(run: Run, epoch: int | None) -> Record:
    """Return all that a run logged of an epoch, empty where it logged nothing of it."""
    record: Record = {}
    for line in run.records():  # what was measured of the best epoch may stand in a line of its own
        if line["kind"] in ("epoch", "best") and line["epoch"] == epoch:
            record |= line
    return record


def scores_of(run: Run) -> tuple[int, dict[str, float]]:
    """Return a run's best epoch, and what was measured there."""
    best = int(run.info()["best_epoch"])
    record = measured_at(run, best)
    scores = {"val_loss": float(record["val"]["loss"])}
    retrieval: Record = record["retrieval"]
    for way, short in (("image_to_text", "i2t"), ("text_to_image", "t2i")):
        scores |= {f"{short}_{key}": float(retrieval[way][key]) for key in ("r1", "r5", "r10")}
    recalls = [value for key, value in scores.items() if key != "val_loss"]
    scores["mean_recall"] = sum(recalls) / len(recalls)
    for metric, values in record["alignment"].items():
        scores |= {f"{metric}_{pair}": float(value) for pair, value in values.items()}
    for metric, margin in (record["hypotheses"] or {}).items():
        scores |= {f"{metric}_{name}": float(margin[name]) for name in ("h1", "h2")}
    return best, scores
