"""A sweep on disk that nobody trained: folders, records and scores as ``align-cache sweep`` leaves them."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from align_cache.config import to_toml
from align_cache.results import create_run
from align_cache.settings import SweepConfig, fit_config
from align_cache.sweeps.records import RankBy, TrialRecord, append_trial

RECALLS = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")
HOSTILE = "<script>alert('x')</script>"
RETRIEVAL = {
    "image_to_text": {"n_queries": 200, "n_candidates": 1000},
    "text_to_image": {"n_queries": 1000, "n_candidates": 200},
}


def recall_of(values: dict[str, Any]) -> float:
    """Made up: mlp wants a higher rate, the best temperature is 0.08, and nothing else matters."""
    mlp = values.get("adapter.type") == "mlp"
    rate = math.log10(values.get("optim.lr", 3e-4)) - (-3.0 if mlp else -3.5)
    heat = math.log10(values.get("loss.temperature", 0.07)) + 1.1
    return 0.30 + 0.03 * mlp - 0.12 * rate**2 - 0.10 * heat**2


def scores(recall: float) -> dict[str, float]:
    """All that a trial is scored by, around a mean recall."""
    spread = dict(zip(RECALLS, (-0.15, 0.0, 0.15, -0.15, 0.0, 0.15), strict=True))
    found = {name: recall + shift for name, shift in spread.items()}
    found |= {"mean_recall": recall, "val_loss": 5 - 4 * recall}
    for metric in ("mutual_knn", "cka"):
        found |= {f"{metric}_aligned_reference": 0.2 + recall / 4, f"{metric}_image_text": 0.1}
        found |= {f"{metric}_h1": recall / 5, f"{metric}_h2": -0.04}
    return found


def fabricate(
    cache_dir: Path,
    points: Iterable[dict[str, Any]],
    *,
    name: str = "toy",
    rank_by: RankBy = "mean_recall",
    shared: dict[str, Any] | None = None,
    untrained: bool = False,
    seed: int = 0,
) -> Path:
    """Add a trial and its run for each point; one with a rate of 1 or more failed."""
    generator = np.random.default_rng(seed)
    folder = cache_dir / "sweeps" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.toml").write_text(to_toml(SweepConfig(name=name, rank_by=rank_by)))
    for place, values in enumerate(points):
        recall = recall_of(values) + float(generator.normal(0, 0.004))
        config = to_toml(fit_config(flags={**(shared or {}), **values}))
        add_trial(cache_dir, folder, f"{seed}-{place}", values, config, recall, untrained=untrained)
    return folder


def add_trial(
    cache_dir: Path,
    folder: Path,
    key: str,
    values: dict[str, Any],
    config: str,
    recall: float,
    *,
    untrained: bool,
) -> None:
    failed = values.get("optim.lr", 0.0) >= 1
    run = create_run(cache_dir / "runs", cache_dir, adapter="mlp", config_toml=config)
    run.update(
        id=run.id,
        status="failed" if failed else "finished",
        dataset=f"toy {HOSTILE}",
        created="2026-01-02T03:04:05+00:00",
        untrained=["image"] if untrained else [],
        **{role: {"encoder": role, "key8": "0" * 8} for role in ("image", "text", "reference")},
    )
    if not failed:
        run.append_record({"kind": "epoch", "epoch": 2, "n": 200, "k": 10, "retrieval": RETRIEVAL})
    trial = TrialRecord(
        key=key,
        values=values,
        status="failed" if failed else "finished",
        run=run.id,
        error=f"the loss is nan {HOSTILE}" if failed else None,
        best_epoch=None if failed else 2,
        duration_s=4.0,
        scores={} if failed else scores(recall),
    )
    append_trial(folder, trial)
