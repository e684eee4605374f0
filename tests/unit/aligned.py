"""Small runs on drawn scenes, by encoders that draw their weights: what a model is made from in tests."""

from pathlib import Path
from typing import Any

import numpy as np

from align_cache.extraction.extracting import extract
from align_cache.extraction.origin import reopen_source, required_origin
from align_cache.results import Run
from align_cache.settings import ExtractConfig, fit_config
from align_cache.store import FeatureSet, find_one
from align_cache.training.fitting import fit

SETTINGS: dict[str, Any] = {
    "data.dataset": "shapes",
    "data.image_encoder": "small-cnn",
    "data.reference": "none",
    "data.num_samples": "none",
    "data.batch_size": 16,
    "adapter.type": "linear",
    "adapter.embed_dim": 24,
    "adapter.token_dim": 12,
    "adapter.text_hidden": 10,
    "loss.distribution_matching": False,
    "optim.epochs": 2,
    "optim.warmup_epochs": 1,
    "optim.lr": 1e-2,
    "evaluation.k": 2,
    "log.viz_frequency": 0,
    "device": "cpu",
    "precision": "fp32",
}


def extract_scenes(cache_dir: Path, **changes: Any) -> None:
    """Features and token ids of a few drawn scenes with five captions each."""
    config = ExtractConfig(
        dataset="shapes",
        encoders=("small-cnn", "small-text", "tokens"),
        weights={"small-cnn": "random", "small-text": "random:3"},
        options={"count": 40},
        device="cpu",
        **changes,
    )
    extract(config, cache_dir=cache_dir)


def fit_scenes(cache_dir: Path, text: str, **changes: object) -> Run:
    """A run of the features, or of the tokens by a tower: ``small-text``, ``lstm`` or ``bow``."""
    tower = {} if text == "small-text" else {"adapter.text_type": text}
    flags = {**SETTINGS, **tower, "data.text_encoder": "tokens" if tower else text, **changes}
    return fit(fit_config(flags=flags), cache_dir=cache_dir)


def sets_of(cache_dir: Path, run: Run) -> tuple[FeatureSet, FeatureSet]:
    """The image and the text features of a run."""
    info = run.info()
    image, text = (
        FeatureSet.open(
            find_one(cache_dir, info["dataset"], f"{info[role]['encoder']}@{info[role]['key8']}").folder
        )
        for role in ("image", "text")
    )
    return image, text


def scenes_of(cache_dir: Path, run: Run) -> list[np.ndarray]:
    """The drawn images in the order of the image features."""
    described = run.info()["image"]
    stored = find_one(cache_dir, "shapes", f"{described['encoder']}@{described['key8']}")
    source = reopen_source(stored, required_origin(stored))
    return [np.asarray(source.read_image(row)) for row in range(len(source.images))]
