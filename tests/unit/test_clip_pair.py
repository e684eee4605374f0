"""Both towers of one CLIP in the cache: extracted from one folder, and known to share a space."""

from pathlib import Path
from typing import Any

import pytest

from align_cache import EvalConfig, ExtractConfig, evaluate, extract, fit, fit_config
from tests.unit.clip_folder import clip_folder

pytest.importorskip("transformers")

TOWERS = ("hf:some/clip:image", "hf:some/clip:text")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("models") / "clip")


def judged(cache_dir: Path, names: tuple[str, str], weights: str, **settings: Any) -> dict[str, Any]:
    """The record of a run on the towers' features of a few drawn scenes."""
    request = ExtractConfig(
        dataset="shapes",
        options={"count": 60},
        encoders=names,
        weights={"*": weights},
        device="cpu",
        **settings,
    )
    extract(request, cache_dir=cache_dir)
    small = (
        "data.dataset=shapes",
        "data.batch_size=8",
        "evaluation.k=3",
        "optim.epochs=2",
        "optim.warmup_epochs=0",
    )
    pair = (f"data.image_encoder={names[0]}", f"data.text_encoder={names[1]}", "data.reference=none")
    off = ("loss.distribution_matching=false",)
    run = fit(fit_config(assignments=(*small, *pair, *off)), cache_dir=cache_dir)
    return evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)


def test_towers_of_one_folder_are_judged_before_training_too(folder: Path, cache_dir: Path) -> None:
    record = judged(cache_dir, TOWERS, str(folder), max_length=12)
    assert record["features"]["retrieval"] is not None
    assert record["features"]["retrieval"].keys() == record["embeddings"]["retrieval"].keys()


def test_the_pooled_outputs_before_the_projections_share_no_space(folder: Path, cache_dir: Path) -> None:
    record = judged(cache_dir, TOWERS, str(folder), max_length=12, pooling="pooler")
    assert record["features"]["retrieval"] is None
