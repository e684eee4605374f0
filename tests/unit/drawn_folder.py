"""Drawn scenes as a plain folder of pictures with captions, and a small model that was trained on it."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align_cache.extraction.extracting import extract
from align_cache.results import Run
from align_cache.settings import ExtractConfig, fit_config
from align_cache.sources import open_source
from align_cache.training.fitting import fit

PICTURES = 40
SETTINGS: dict[str, Any] = {
    "data.dataset": "scenes",
    "data.image_encoder": "small-cnn",
    "data.text_encoder": "tokens",
    "data.reference": "none",
    "data.num_samples": "none",
    "data.batch_size": 12,
    "data.captions_per_image": "all",
    "adapter.type": "linear",
    "adapter.text_type": "bow",
    "adapter.token_dim": 12,
    "adapter.embed_dim": 16,
    "loss.distribution_matching": False,
    "loss.temperature": 0.1,
    "optim.epochs": 4,
    "optim.warmup_epochs": 1,
    "optim.lr": 3e-2,
    "evaluation.k": 3,
    "precision": "fp32",
}


def write_scenes(folder: Path, *, pictures: int = PICTURES) -> None:
    """Write pictures below ``pictures/`` and a ``captions.csv``; every fifth is of the test split."""
    source = open_source("shapes", options={"count": pictures})
    (folder / "images" / "drawn").mkdir(parents=True)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file_name", "caption", "split"])
    for row in range(pictures):
        name, split = f"drawn/{row:03d}.png", ("train", "train", "train", "val", "test")[row % 5]
        Image.fromarray(np.asarray(source.read_image(row))).save(folder / "images" / name)
        owner = source.images[row].sample_id
        writer.writerows([name, c.text, split] for c in source.captions if c.group_id == owner)
    (folder / "captions.csv").write_text(table.getvalue(), encoding="utf-8")


def extract_scenes(folder: Path, cache_dir: Path, **settings: Any) -> None:
    """Extract a folder of scenes as dataset "scenes": an untrained image encoder and token ids."""
    given: dict[str, Any] = {
        "dataset": "folder",
        "data_dir": folder,
        "name": "scenes",
        "encoders": ("small-cnn", "tokens"),
        "weights": {"small-cnn": "random"},
        "device": "cpu",
    }
    extract(ExtractConfig(**(given | settings)), cache_dir=cache_dir)


def fit_scenes(cache_dir: Path, **settings: Any) -> Run:
    """Train a linear image adapter and a bag of tokens on the scenes of a cache."""
    return fit(fit_config(flags=SETTINGS | settings), cache_dir=cache_dir)
