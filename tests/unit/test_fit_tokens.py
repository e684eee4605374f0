"""Runs whose text side is trained from token ids: fitted, resumed, loaded, judged, and what does not fit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from align_cache.adapters.run_adapters import load_pair
from align_cache.errors import AlignCacheError, ConfigError
from align_cache.extraction.extracting import extract
from align_cache.judging.evaluation import evaluate
from align_cache.judging.run_features import choose_split, open_run_features
from align_cache.pairing.embedding import embed_pairs
from align_cache.results import Run
from align_cache.settings import EvalConfig, ExtractConfig, FitConfig, fit_config
from align_cache.training.assemble import Opened, assemble
from align_cache.training.fitting import fit, resume_fit
from align_cache.training.run_shape import shape_of

SETTINGS: dict[str, Any] = {
    "data.dataset": "shapes",
    "data.image_encoder": "small-cnn",
    "data.text_encoder": "tokens",
    "data.reference": "small-vit",
    "data.num_samples": "none",
    "data.batch_size": 16,
    "data.captions_per_image": "all",
    "adapter.type": "linear",
    "adapter.text_type": "lstm",
    "adapter.token_dim": 12,
    "adapter.text_hidden": 10,
    "optim.epochs": 3,
    "optim.warmup_epochs": 1,
    "optim.lr": 1e-2,
    "loss.temperature": 0.1,
    "evaluation.k": 3,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty drawn scenes: image features, a reference, and the token ids of their captions."""
    cache_dir = tmp_path_factory.mktemp("tokens")
    config = ExtractConfig(
        dataset="shapes",
        encoders=("small-cnn", "small-vit", "tokens"),
        weights={"small-cnn": "random", "small-vit": "random"},
        options={"count": 60},
        device="cpu",
    )
    extract(config, cache_dir=cache_dir)
    return cache_dir


@pytest.fixture
def scenes(made: Path, cache_dir: Path) -> Path:
    shutil.copytree(made / "features", cache_dir / "features")
    return cache_dir


def of(**changes: object) -> FitConfig:
    return fit_config(flags={**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}})


def losses(run: Run) -> list[float]:
    return [
        record["train"]["loss"] for record in run.records() if record["kind"] == "epoch" and record["epoch"]
    ]


@pytest.mark.parametrize("tower", ["lstm", "bow"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_tower_learns_and_is_read_back_as_it_was(scenes: Path, tower: str, precision: str) -> None:
    run = fit(of(adapter__text_type=tower, precision=precision, optim__epochs=5), cache_dir=scenes)
    assert losses(run)[-1] < losses(run)[0] - 0.1
    pair, _ = load_pair(run, "last")
    parts = assemble(fit_config(file=run.folder / "config.toml"), Opened(scenes))
    captions = embed_pairs(pair, parts.inputs, parts.splits.val).captions
    last = [record for record in run.records() if record["kind"] == "epoch"][-1]
    loaded_again = embed_pairs(load_pair(run, "last")[0], parts.inputs, parts.splits.val).captions
    assert torch.equal(captions, loaded_again)
    assert last["retrieval"]["image_to_text"]["n_queries"] == parts.splits.val.n_images
    assert "text.tower.table.weight" in pair.state_dict()


def test_an_interrupted_run_goes_on_to_the_same_weights(scenes: Path) -> None:
    config = of(adapter__text_layers=2, adapter__text_bidirectional=True, adapter__text_pooling="mean")
    whole = fit(config, cache_dir=scenes)

    class Stop(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record["kind"] == "epoch" and record["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(config, cache_dir=scenes, on_record=stop)
    resumed = resume_fit("latest", cache_dir=scenes)
    assert resumed.id != whole.id
    for name, weight in load_pair(whole, "last")[0].state_dict().items():
        assert torch.equal(weight, load_pair(resumed, "last")[0].state_dict()[name]), name


def test_an_evaluation_has_no_raw_text_to_compare_with(scenes: Path) -> None:
    run = fit(of(), cache_dir=scenes)
    record = evaluate(run, EvalConfig(k=3), cache_dir=scenes)
    assert set(record["features"]["alignment"]["mutual_knn"]) == {"image_reference"}
    assert set(record["embeddings"]["alignment"]["mutual_knn"]) == {
        "image_text", "image_reference", "text_reference", "aligned_reference"
    }  # fmt: skip
    assert set(record["hypotheses"]) == {"embeddings"}
    assert record["features"]["retrieval"] is None
    joined = open_run_features(run.info(), of(), scenes)
    assert record["n_captions"] == choose_split(joined, of(), None)[1].n_captions


def test_the_table_holds_what_the_training_captions_hold(scenes: Path) -> None:
    few, all_of_them = (assemble(of(data__num_samples=n), Opened(scenes)) for n in (4, "none"))
    sizes = []
    for parts in (few, all_of_them):
        tower = parts.member.pair.text.tower
        assert tower is not None
        ids = parts.inputs.text.take(parts.splits.train.caption_rows)
        assert len(tower.table.weight) == len(torch.unique(ids[ids > 0])) + 1
        sizes.append(len(tower.table.weight))
    assert sizes[0] < sizes[1]


def test_runs_with_towers_are_not_trained_together(scenes: Path) -> None:
    opened = Opened(scenes, whole=True)
    first, second = (of(seed=seed) for seed in (0, 1))
    assert shape_of(first, assemble(first, opened)) != shape_of(second, assemble(second, opened))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"adapter__text_type": None}, "holds token ids"),
        ({"data__text_encoder": "small-cnn"}, "small-cnn"),
        ({"adapter__type": "cca"}, "solved for"),
        ({"data__mixup": 0.2}, "works on vectors"),
        ({"loss__structure_weight": 1.0}, "works on vectors"),
    ],
)
def test_what_does_not_fit_is_refused(scenes: Path, changes: dict[str, Any], problem: str) -> None:
    kept = {key: value for key, value in changes.items() if value is not None}
    without = {key.replace("__", ".") for key in changes} - {key.replace("__", ".") for key in kept}
    flags = {key: value for key, value in SETTINGS.items() if key not in without}
    with pytest.raises(AlignCacheError, match=problem):
        assemble(
            fit_config(flags={**flags, **{k.replace("__", "."): v for k, v in kept.items()}}), Opened(scenes)
        )


def test_a_tower_over_features_is_refused(scenes: Path) -> None:
    small = ExtractConfig(
        dataset="shapes",
        encoders=("small-text",),
        weights={"*": "random"},
        options={"count": 60},
        device="cpu",
    )
    extract(small, cache_dir=scenes)
    with pytest.raises(ConfigError, match="reads token ids, and shapes/small-text"):
        assemble(of(data__text_encoder="small-text"), Opened(scenes))
