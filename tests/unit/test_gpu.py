"""On a GPU: the CPU's numbers. One command there: ``pytest tests/unit/test_gpu.py``."""

from pathlib import Path

import numpy as np
import pytest
import torch

from align_cache.extraction.extracting import extract
from align_cache.settings import ExtractConfig, fit_config
from align_cache.store import FeatureSet
from align_cache.training.assemble import Opened
from align_cache.training.fitting import fit, start, train
from tests.unit.stored import paired_sets

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("encoder", ["resnet18", "small-cnn", "distilbert"])
def test_features_of_the_gpu_are_those_of_the_cpu(encoder: str, tmp_path: Path) -> None:
    made = []
    for device in ("cpu", "cuda"):
        config = ExtractConfig(
            dataset="shapes",
            encoders=(encoder,),
            weights={"*": "random"},
            options={"count": 64},
            dtype="float32",
            device=device,
        )
        (result,) = extract(config, cache_dir=tmp_path / device)
        made.append(FeatureSet.open(result.folder).array())
    assert np.abs((made[0] * made[1]).sum(axis=1) - 1).max() < 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_on_the_gpu_ends_near_the_run_on_the_cpu(precision: str, cache_dir: Path) -> None:
    paired_sets(cache_dir, n=200)
    losses = []
    for device in ("cpu", "cuda"):
        flags: dict[str, object] = {
            **{"data.dataset": "toy", "data.image_encoder": "image", "data.text_encoder": "text"},
            **{"data.reference": "reference", "data.batch_size": 32, "adapter.dropout": 0.0},
            **{"optim.epochs": 4, "optim.warmup_epochs": 1, "optim.lr": 1e-3},
            **{"device": device, "precision": precision},
        }
        run = fit(fit_config(flags=flags), cache_dir=cache_dir)
        losses.append([record["val"]["loss"] for record in run.records() if record["kind"] == "epoch"][-1])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3 if precision == "fp32" else 2e-2)


@pytest.mark.parametrize("schedule", ["fixed", "variance"])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_runs_trained_together_on_the_gpu_are_the_runs_alone(
    cuda_graph: bool, schedule: str, cache_dir: Path
) -> None:
    """Stacked, and with the step recorded as a graph: the same losses as eager runs one by one."""
    paired_sets(cache_dir, n=200)
    flags: dict[str, object] = {
        **{"data.dataset": "toy", "data.image_encoder": "image", "data.text_encoder": "text"},
        **{"data.reference": "reference", "data.batch_size": 32, "adapter.dropout": 0.2},
        **{"optim.epochs": 6, "optim.warmup_epochs": 1, "optim.lr": 1e-3},
        **{"device": "cuda", "precision": "fp32", "loss.schedule": schedule},
    }
    seeds, opened = range(4), Opened(cache_dir, whole=True)
    sessions = [
        start(fit_config(flags={**flags, "seed": s, "cuda_graph": cuda_graph}), opened) for s in seeds
    ]
    train(sessions)
    for session, seed in zip(sessions, seeds, strict=True):
        alone = fit(fit_config(flags={**flags, "seed": seed}), cache_dir=cache_dir)
        found, expected = ([r["val"]["loss"] for r in run.records() if r["kind"] == "epoch"]
                           for run in (session.run, alone))  # fmt: skip
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("schedule", ["fixed", "variance"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_step_is_the_eager_step(precision: str, schedule: str, cache_dir: Path) -> None:
    paired_sets(cache_dir, n=200)
    flags: dict[str, object] = {
        **{"data.dataset": "toy", "data.image_encoder": "image", "data.text_encoder": "text"},
        **{"data.reference": "reference", "data.batch_size": 32, "loss.learn_temperature": True},
        **{"optim.epochs": 6, "optim.warmup_epochs": 1, "device": "cuda", "precision": precision},
        "loss.schedule": schedule,
    }
    eager, graph = (
        fit(fit_config(flags={**flags, "cuda_graph": c}), cache_dir=cache_dir) for c in (False, True)
    )
    found, expected = (
        [r["val"]["loss"] for r in run.records() if r["kind"] == "epoch"] for run in (graph, eager)
    )
    assert found == pytest.approx(expected, rel=1e-3 if precision == "fp32" else 2e-2)
