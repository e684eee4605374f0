"""On a GPU: the CPU's numbers. One command there: ``pytest tests/unit/test_gpu.py``."""

from pathlib import Path

import numpy as np
import pytest
import torch

from align_cache.extraction import extract
from align_cache.fitting import fit
from align_cache.settings import ExtractConfig, fit_config
from align_cache.store import FeatureSet
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
