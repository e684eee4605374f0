"""Noise as a variant of a feature set: its key, its name, what of it is stored, and what stays clean."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_cache.cli import main
from align_cache.errors import CacheError, UsageError
from align_cache.extraction.extracting import Extracted, extract
from align_cache.judging.evaluation import evaluate
from align_cache.settings import EvalConfig, ExtractConfig, fit_config
from align_cache.store import FeatureSet, find, open_feature_set
from align_cache.store.layout import differences, identity_key
from align_cache.training.fitting import fit

BOTH = ("small-cnn", "small-text")
CLEAN_KEYS = {
    "small-cnn": "83b63e98b453c2c4fb0f69730edce17598a21bc8e3fa80a680e49f839c928702",
    "small-text": "23cd65fdc7c04255d48ef8e2544b76e7948250b0328cce7067b00075e4a3df06",
}
"""Of the extraction below, before there was noise."""


def run(cache_dir: Path, *encoders: str, **changes: Any) -> list[Extracted]:
    settings: dict[str, Any] = {"options": {"count": 20}, "shard_rows": 8, "batch_size": 4, **changes}
    config = ExtractConfig(
        dataset="shapes", encoders=encoders, weights={"*": "random"}, device="cpu", **settings
    )
    return extract(config, cache_dir=cache_dir)


def rows(folder: Path) -> np.ndarray:
    return FeatureSet.open(folder).array().astype(np.float32)


def test_keys_without_noise_are_what_they_were(cache_dir: Path) -> None:
    assert {result.encoder: result.key for result in run(cache_dir, *BOTH)} == CLEAN_KEYS


def test_a_noisy_set_differs_from_the_clean_one_in_the_corruption_alone(cache_dir: Path) -> None:
    clean = run(cache_dir, *BOTH)
    noisy = run(cache_dir, *BOTH, image_noise="blur:2", caption_noise="drop:0.2")
    expected = [{"kind": "blur", "severity": 2, "version": 1}, {"kind": "drop", "rate": 0.2, "version": 1}]
    for one, other, corruption in zip(clean, noisy, expected, strict=True):
        identities = [FeatureSet.open(result.folder).manifest.identity for result in (one, other)]
        assert identities[1] == identities[0] | {"corruption": corruption}
        assert {path.partition(".")[0] for path, *_ in differences(*identities)} == {"corruption"}
        assert other.key == identity_key(identities[1]) != one.key


def test_noise_for_one_modality_leaves_the_other_where_it_is(cache_dir: Path) -> None:
    run(cache_dir, *BOTH)
    image, text = run(cache_dir, *BOTH, image_noise="gaussian:1")
    assert (image.status, text.status) == ("extracted", "already there")
    image, text = run(cache_dir, *BOTH, caption_noise="swap:0.5")
    assert (image.status, text.status) == ("already there", "extracted")


def test_more_noise_moves_features_further_from_the_clean_ones(cache_dir: Path) -> None:
    (clean,) = run(cache_dir, "small-cnn")
    likeness = [
        (rows(clean.folder) * rows(run(cache_dir, "small-cnn", image_noise=f"gaussian:{s}")[0].folder))
        .sum(1)
        .mean()
        for s in (1, 3, 5)
    ]
    assert 1 > likeness[0] > likeness[1] > likeness[2]


@pytest.mark.parametrize("noise", ["gaussian:2", "jpeg:4"])
def test_noise_does_not_depend_on_shards_batches_or_threads(noise: str, cache_dir: Path) -> None:
    (one,) = run(cache_dir, "small-cnn", image_noise=noise, workers=1)
    (other,) = run(cache_dir, "small-cnn", image_noise=noise, workers=3, shard_rows=5, batch_size=3)
    np.testing.assert_allclose(rows(one.folder), rows(other.folder), atol=1e-3)


def test_a_lost_shard_of_noisy_captions_is_made_again_to_the_same_bytes(cache_dir: Path) -> None:
    (text,) = run(cache_dir, "small-text", caption_noise="shuffle:0.5", shard_rows=40)
    before = {path.name: path.read_bytes() for path in text.folder.glob("shard-*")}
    (text.folder / "shard-00001.h5").unlink()
    (again,) = run(cache_dir, "small-text", caption_noise="shuffle:0.5", shard_rows=40)
    assert again.samples_done == 40
    assert {path.name: path.read_bytes() for path in text.folder.glob("shard-*")} == before


def test_the_noisy_caption_is_stored_under_the_ids_of_the_clean_one(cache_dir: Path) -> None:
    (clean,), (noisy,) = (
        run(cache_dir, "small-text"),
        run(cache_dir, "small-text", caption_noise="shuffle:0.5"),
    )
    one, other = FeatureSet.open(clean.folder), FeatureSet.open(noisy.folder)
    assert one.sample_ids.tolist() == other.sample_ids.tolist()
    assert one.group_ids is not None
    assert other.group_ids is not None
    assert one.group_ids.tolist() == other.group_ids.tolist()
    assert one.texts is not None
    assert other.texts is not None
    assert sorted(one.texts) == sorted(other.texts)
    changed = one.texts != other.texts
    assert 0 < changed.sum() <= 50
    # The vocabulary is that of the clean captions: what did not change has the features it had.
    same = (rows(clean.folder) * rows(noisy.folder)).sum(1) > 0.999
    assert same[~changed].all()


def test_a_plain_name_means_the_clean_set_and_a_variant_has_its_own(cache_dir: Path) -> None:
    (noisy,) = run(cache_dir, "small-cnn", image_noise="gaussian:3")
    with pytest.raises(
        CacheError, match=r"no feature set of shapes by small-cnn .*there are small-cnn\+gaussian:3"
    ):
        open_feature_set("shapes", "small-cnn", cache_dir=cache_dir)
    (clean,) = run(cache_dir, "small-cnn")
    run(cache_dir, "small-cnn", image_noise="gaussian:4")
    for name, expected in [
        ("small-cnn", clean),
        (f"small-cnn@{clean.key[:8]}", clean),
        ("small-cnn+gaussian:3", noisy),
        (f"small-cnn@{noisy.key[:8]}", noisy),
        (f"small-cnn+gaussian:3@{noisy.key[:8]}", noisy),
    ]:
        assert open_feature_set("shapes", name, cache_dir=cache_dir).key == expected.key
    assert noisy.name == f"shapes/small-cnn+gaussian:3@{noisy.key[:8]}"
    assert {stored.manifest.noise for stored in find(cache_dir)} == {None, "gaussian:3", "gaussian:4"}


def test_a_variant_that_is_not_there_is_asked_for_by_its_flag(cache_dir: Path) -> None:
    run(cache_dir, "small-text")
    with pytest.raises(CacheError) as caught:
        open_feature_set("shapes", "small-text+drop:0.3", cache_dir=cache_dir)
    assert (
        caught.value.hint
        == "align-cache extract --dataset shapes --encoder small-text --caption-noise drop:0.3"
    )
    with pytest.raises(CacheError) as caught:
        open_feature_set("shapes", "c++", cache_dir=cache_dir)
    assert caught.value.hint == "align-cache extract --dataset shapes --encoder c++"


@pytest.mark.parametrize(
    ("encoder", "changes", "said"),
    [
        ("small-text", {"image_noise": "blur:1"}, "none of small-text encodes images"),
        ("small-cnn", {"caption_noise": "drop:0.1"}, "none of small-cnn encodes text"),
    ],
)
def test_noise_that_no_encoder_would_meet_is_refused(
    encoder: str, changes: dict[str, str], said: str, cache_dir: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        run(cache_dir, encoder, **changes)


@pytest.mark.parametrize(("field", "noise"), [("image_noise", "drop:0.1"), ("caption_noise", "blur:1")])
def test_noise_of_the_other_modality_is_refused(field: str, noise: str) -> None:
    with pytest.raises(ValueError, match="expected noise for"):
        ExtractConfig.model_validate({"dataset": "shapes", "encoders": BOTH, field: noise})


def test_settings_spell_noise_in_one_way() -> None:
    config = ExtractConfig(dataset="shapes", encoders=BOTH, image_noise="jpeg:02", caption_noise="drop:.50")
    assert (config.image_noise, config.caption_noise) == ("jpeg:2", "drop:0.5")


def test_noisy_captions_give_no_vocabulary(cache_dir: Path) -> None:
    run(cache_dir, "small-text", caption_noise="drop:0.5")
    with pytest.raises(UsageError, match=r"small-text\+drop:0\.5@\w+ holds captions with noise"):
        run(cache_dir, "small-text", vocabulary="shapes/small-text+drop:0.5")


def test_a_run_on_a_variant_says_so_and_is_judged_on_it(cache_dir: Path) -> None:
    options = {"options": {"count": 40}}
    run(cache_dir, *BOTH, **options, image_noise="occlusion:2", caption_noise="replace:0.2")
    run(cache_dir, *BOTH, **options)
    flags = {
        "data.dataset": "shapes", "data.image_encoder": "small-cnn+occlusion:2",
        "data.text_encoder": "small-text", "data.reference": "none", "data.batch_size": 8,
        "adapter.type": "linear", "adapter.embed_dim": 8,
        "loss.distribution_matching": "false", "optim.epochs": 1, "optim.warmup_epochs": 0, "evaluation.k": 2,
    }  # fmt: skip
    trained = fit(fit_config(flags=flags), cache_dir=cache_dir)
    assert trained.info()["image"]["encoder"] == "small-cnn+occlusion:2"
    assert trained.info()["text"]["encoder"] == "small-text"
    record = evaluate(trained, EvalConfig(k=2, device="cpu"), cache_dir=cache_dir)
    assert (record["split"], record["n_images"]) == ("test", 4)


def test_the_commands_take_and_show_noise(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--dataset",
        "shapes",
        "--set",
        "options.count=10",
        "--encoder",
        "small-text",
        "--weights",
        "random",
    ]
    place = ["--cache-dir", str(cache_dir), "--json"]
    assert main(["extract", *words, "--caption-noise", "drop:.30", *place]) == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert made["noise"] == "drop:0.3"
    assert made["name"].startswith("shapes/small-text+drop:0.3@")
    assert main(["cache", "ls", *place]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["noise"]) == (made["name"], "drop:0.3")
    assert main(["cache", "info", made["name"], *place]) == 0
    assert main(["extract", *words, "--image-noise", "fog:3", *place]) == 2
    assert "there is no noise 'fog:3'" in capsys.readouterr().err


def test_noise_takes_real_features_further_away_with_every_severity(cache_dir: Path, real_data: Path) -> None:
    def features(noise: str | None) -> np.ndarray:
        config = ExtractConfig(
            dataset="flickr8k", data_dir=real_data / "flickr8k", encoders=("torchvision:mobilenet_v2",),
            weights={"*": str(real_data / "mobilenet_v2-imagenet1k-dequantized.safetensors")},
            limit=8, device="cpu", image_noise=noise,
        )  # fmt: skip
        return rows(extract(config, cache_dir=cache_dir)[0].folder)

    clean = features(None)
    for kind in ("gaussian", "blur", "occlusion", "jpeg"):
        likeness = [(clean * features(f"{kind}:{severity}")).sum(1).mean() for severity in (1, 4)]
        assert 0.99 > likeness[0] > likeness[1], kind
