"""Class prompts: extracted, kept in the cache, and what a run classifies by them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_cache.errors import CacheError, PairingError, UsageError
from align_cache.extraction.external import import_features
from align_cache.extraction.extracting import Extracted, extract
from align_cache.judging.comparison import compare
from align_cache.judging.evaluation import evaluate
from align_cache.reporting.comparison import comparison_tables
from align_cache.reporting.page import render
from align_cache.reporting.zero_shot import zero_shot_tables
from align_cache.results import Run
from align_cache.run_records import read_run
from align_cache.settings import EvalConfig, ExtractConfig, fit_config
from align_cache.sources import open_source
from align_cache.sources.prompts import PHOTO_TEMPLATES, class_prompts
from align_cache.store import FeatureSet, find
from align_cache.terminal.tables import evaluation_table
from align_cache.training.fitting import fit
from tests.unit.stored import paired_sets
from tests.unit.test_fit import labelled, toy

SMALL: dict[str, Any] = {
    "dataset": "shapes10",
    "encoders": ("small-text",),
    "weights": {"*": "random"},
    "options": {"count": 60},
    "shard_rows": 16,
    "device": "cpu",
}


def run_extract(cache_dir: Path, **changes: Any) -> list[Extracted]:
    return extract(ExtractConfig(**{**SMALL, **changes}), cache_dir=cache_dir)


def test_prompts_are_rows_with_their_class_as_label_and_group(cache_dir: Path) -> None:
    (made,) = run_extract(cache_dir, templates=("a {}.", "we see a {}"))
    prompts = FeatureSet.open(made.folder)
    assert prompts.modality == "text"
    assert prompts.sample_ids.tolist()[:3] == ["circle/0", "circle/1", "square/0"]
    assert prompts.group_ids is not None
    assert prompts.labels is not None
    assert prompts.texts is not None
    assert prompts.labels.tolist() == [i // 2 for i in range(20)]
    assert [prompts.label_names[label] for label in prompts.labels] == prompts.group_ids.tolist()
    assert prompts.texts.tolist()[:3] == ["a circle.", "we see a circle", "a square."]
    assert prompts.splits is None


@pytest.mark.parametrize("dataset", ["shapes10", "colours12"])
def test_the_templates_of_a_drawn_set_speak_the_words_of_the_captions_of_shapes(dataset: str) -> None:
    source = open_source(dataset)
    captions = open_source("shapes", options={"count": 2000}).captions
    known = {
        word for caption in captions for word in caption.text.lower().rstrip(".").replace(",", "").split()
    }
    for prompt in class_prompts(source.label_names, source.templates):
        assert set(prompt.text.lower().rstrip(".").split()) <= known, prompt.text


def test_a_dataset_without_templates_of_its_own_takes_those_for_photographs(
    cache_dir: Path, tmp_path: Path
) -> None:
    from PIL import Image

    for name in ("traffic_light", "cat"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "pictures" / name / "a.png")
    (made,) = run_extract(cache_dir, dataset="folder", data_dir=tmp_path / "pictures", options={})
    texts = FeatureSet.open(made.folder).texts
    assert texts is not None
    expected = [t.replace("{}", name) for name in ("cat", "traffic light") for t in PHOTO_TEMPLATES]
    assert texts.tolist() == expected


def test_other_templates_are_other_features_and_a_file_of_the_same_ones_the_same(
    cache_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a {}.\n\nwe see a {}\n", encoding="utf-8")
    listed = run_extract(cache_dir, templates=("a {}.", "we see a {}"))[0]
    read = run_extract(cache_dir, templates=file)[0]
    assert (read.key, read.status) == (listed.key, "already there")
    others = [run_extract(cache_dir, templates=given)[0].key
              for given in (None, ("a {}.", "we see the {}"), ("we see a {}", "a {}."))]  # fmt: skip
    assert len({listed.key, *others}) == 4


def test_images_and_prompts_in_one_command_are_each_what_they_are_alone(
    cache_dir: Path, tmp_path: Path
) -> None:
    together = run_extract(cache_dir, encoders=("small-cnn", "small-text"))
    alone = [run_extract(tmp_path / name, encoders=(name,))[0] for name in ("small-cnn", "small-text")]
    for one, other in zip(together, alone, strict=True):
        assert one.key == other.key
        shards = [sorted(made.folder.glob("*.h5")) for made in (one, other)]
        assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]


def test_prompts_are_the_same_whichever_images_are_taken(cache_dir: Path) -> None:
    every = run_extract(cache_dir, encoders=("small-cnn", "small-text"))
    some = run_extract(cache_dir, encoders=("small-cnn", "small-text"), split=("test",), limit=7)
    assert some[1].key == every[1].key
    assert some[0].key != every[0].key


def test_a_lost_shard_of_prompts_is_made_again_to_the_same_bytes(cache_dir: Path) -> None:
    (made,) = run_extract(cache_dir)
    shard = made.folder / "shard-00001.h5"
    before = shard.read_bytes()
    shard.unlink()
    (again,) = run_extract(cache_dir)
    assert shard.read_bytes() == before
    assert again.samples_done == 16


def test_a_vocabulary_of_other_captions_makes_it_the_encoder_of_those_captions(cache_dir: Path) -> None:
    (captions,) = run_extract(cache_dir, dataset="shapes", options={"count": 30})
    (plain,) = run_extract(cache_dir)
    (shared,) = run_extract(cache_dir, vocabulary="shapes/small-text")
    encoders = [
        FeatureSet.open(made.folder).manifest.identity["encoder"] for made in (captions, plain, shared)
    ]
    assert encoders[2] == encoders[0] != encoders[1]
    features = [FeatureSet.open(made.folder).array() for made in (plain, shared)]
    assert not np.array_equal(*features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": ("a thing",)}, "'a thing' has to hold {} once"),
        ({"templates": ("{} and {}",)}, "'{} and {}' has to hold {} once"),
        ({"templates": ("a {}", "the {}", "a {}")}, "'a {}' stands twice"),
        ({"templates": ()}, "there is none; at least one sentence"),
        ({"templates": Path("nowhere.txt")}, r"nowhere\.txt cannot be read"),
        ({"templates": ("a {}",), "encoders": ("small-cnn",)}, "none of small-cnn encodes text"),
        ({"templates": ("a {}",), "dataset": "shapes"}, "shapes has captions of its own"),
        ({"vocabulary": "shapes10/small-cnn"}, "small-cnn@.* holds no captions, expected every caption"),
        ({"vocabulary": "shapes10/small-text", "encoders": ("small-vit",)}, "none of small-vit counts one"),
    ],
    ids=str,
)
def test_prompts_that_cannot_be_meant_are_refused_before_work(
    changes: dict[str, Any], message: str, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_extract(cache_dir, encoders=("small-cnn", "small-text"))
    monkeypatch.setattr(
        "align_cache.extraction.encoding.load", lambda *_, **__: pytest.fail("a model was loaded")
    )
    with pytest.raises(UsageError, match=message):
        run_extract(cache_dir, **changes)


def test_a_text_encoder_on_classes_without_names_is_refused(cache_dir: Path, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("0", "1"):
        (tmp_path / "numbered" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "numbered" / name / "a.png")
    with pytest.raises(
        UsageError, match="small-text encodes text, and folder has neither captions nor classes"
    ):
        run_extract(cache_dir, dataset="folder", data_dir=tmp_path / "numbered", options={})


def test_a_model_trained_on_drawn_scenes_tells_colours_it_was_never_taught_as_classes(
    cache_dir: Path,
) -> None:
    run = trained_on_shapes(cache_dir)
    config = EvalConfig(zero_shot="colours12", k=5)
    with pytest.raises(CacheError, match="no images of colours12 by small-cnn") as missing:
        evaluate(run, config, cache_dir=cache_dir)
    assert missing.value.hint == (
        "align-cache extract --dataset colours12 --encoder small-cnn --weights random:0"
    )
    scenes: dict[str, Any] = {"dataset": "colours12", "options": {"count": 1440}, "shard_rows": 1024}
    run_extract(cache_dir, **scenes, split=("test",), encoders=("small-cnn", "small-text"))
    with pytest.raises(PairingError, match=r"tokenizer\.counted_from") as other_words:
        evaluate(run, config, cache_dir=cache_dir)
    words = next(stored.manifest.name for stored in find(cache_dir, dataset="shapes", encoder="small-text"))
    assert other_words.value.hint == (
        "align-cache extract --dataset colours12 --encoder small-text --weights random:0 "
        f"--vocabulary {words}"
    )
    run_extract(cache_dir, **scenes, vocabulary=words)
    found = evaluate(run, config, cache_dir=cache_dir)["zero_shot"]
    assert (found["n_classes"], found["n_templates"], found["embeddings"]["n"]) == (12, 8, 240)
    assert found["features"] is None
    assert found["embeddings"]["interval"][0] > found["chance"]
    alone = [prompt["accuracy"] for prompt in found["embeddings"]["prompts"]]
    assert min(alone) > found["chance"]
    assert found["embeddings"]["top5"]["accuracy"] > found["embeddings"]["accuracy"]


def trained_on_shapes(cache_dir: Path) -> Run:
    encoders = ("small-cnn", "small-vit", "small-text")
    run_extract(cache_dir, dataset="shapes", options={"count": 600}, encoders=encoders, shard_rows=1024)
    flags = {
        "data.dataset": "shapes",
        "data.image_encoder": "small-cnn",
        "data.text_encoder": "small-text",
        "data.reference": "small-vit",
        "data.captions_per_image": "all",
        "data.batch_size": 60,
        "adapter.mlp_hidden_dims": [128],
        "adapter.dropout": 0.0,
        "loss.temperature": 0.07,
        "loss.label_smoothing": 0.0,
        "loss.distribution_matching": False,
        "optim.lr": 2e-3,
        "optim.epochs": 8,
        "optim.warmup_epochs": 1,
        "optim.gradient_accumulation_steps": 1,
        "evaluation.k": 5,
        "device": "cpu",
    }
    return fit(fit_config(flags=flags), cache_dir=cache_dir)


NAMES = ("ant", "bee", "cow")


def imported_prompts(cache_dir: Path, **changes: Any) -> None:
    """Prompts for the toy probe set "classes": two templates of three classes, as an import."""
    random = np.random.default_rng(3)
    arrays: dict[str, Any] = {
        "sample_id": np.array([f"{name}/{template}" for template in "pq" for name in NAMES]),
        "group_id": np.array(NAMES * 2),
        "label": np.tile([0, 1, 2], 2),
        "features": random.standard_normal((6, 10)).astype(np.float32),
        **changes,
    }
    file = cache_dir / "prompts.npz"
    np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
    import_features(file, dataset="classes", encoder="text", modality="text", cache_dir=cache_dir)


@pytest.fixture
def toy_run(cache_dir: Path) -> Run:
    paired_sets(cache_dir)
    labelled(cache_dir)
    return fit(toy(), cache_dir=cache_dir)


def test_imported_prompts_are_classified_by_and_what_they_do_not_say_is_noted(
    toy_run: Run, cache_dir: Path
) -> None:
    imported_prompts(cache_dir)
    record = evaluate(toy_run, EvalConfig(k=3, zero_shot="classes"), cache_dir=cache_dir)
    found = record["zero_shot"]
    assert [entry["name"] for entry in found["embeddings"]["classes"]] == list(NAMES)
    assert [prompt["prompt"] for prompt in found["embeddings"]["prompts"]] == ["ant/p", "ant/q"]
    assert found["embeddings"]["top5"] is None
    assert found["chance"] == 1 / 3
    assert len(found["notes"]) == 3
    assert "does not name its classes" in found["notes"][2]
    assert toy_run.results() == [json.loads(json.dumps(record))]
    accuracy, by_class = zero_shot_tables(record)
    assert accuracy.title == "Zero-shot: classes"
    assert accuracy.rows[0][0] == "embeddings"
    assert accuracy.rows[-1][:2] == ("chance", "33.3%")
    assert "3 classes, 2 prompts each, test split" in accuracy.note
    assert {row[0] for row in by_class.rows} == set(NAMES)
    assert len(evaluation_table(record).renderables) > 2
    compared = compare([toy_run])
    assert compared.groups[0].numbers["zero_shot.classes.top1"].mean == found["embeddings"]["accuracy"]
    assert "Zero-shot of classes, accuracy in %" in {table.title for table in comparison_tables(compared)}
    page = render(read_run(toy_run.folder), None, [])
    assert "Zero-shot by class: classes" in page
    assert "Zero-shot, classes" in page


def test_ids_that_tell_no_templates_leave_the_ensemble(toy_run: Run, cache_dir: Path) -> None:
    imported_prompts(cache_dir, sample_id=np.array([f"prompt {i}" for i in range(6)]))
    found = evaluate(toy_run, EvalConfig(k=3, zero_shot="classes"), cache_dir=cache_dir)["zero_shot"]
    assert found["n_templates"] is None
    assert found["embeddings"]["prompts"] is None
    assert found["embeddings"]["accuracy"] >= 0
    assert "6 prompts, test split" in zero_shot_tables({"zero_shot": found})[0].note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": None}, r"classes/text@\w+ holds captions, no class prompts: its rows have no labels"),
        ({"label": np.arange(6)}, "has 3 class names for 6 labels"),
        ({"group_id": np.array([*NAMES, "dog", "eel", "fox"])}, "has 6 class names for 3 labels"),
        ({"label": np.tile([5, 6, 7], 2)}, r"has no prompts of 3 labels of classes/image@\w+, the first 0"),
        ({"features": np.ones((6, 4), np.float32)}, r"has 4 dimensions, and the run was trained on 10"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_imported_rows_that_are_no_prompts_are_refused(
    changes: dict[str, Any], message: str, toy_run: Run, cache_dir: Path
) -> None:
    imported_prompts(cache_dir, **changes)
    with pytest.raises(PairingError, match=message):
        evaluate(toy_run, EvalConfig(k=3, zero_shot="classes"), cache_dir=cache_dir)


def test_missing_prompts_and_missing_labels_say_what_to_do(toy_run: Run, cache_dir: Path) -> None:
    with pytest.raises(CacheError, match="no class prompts of classes by text") as error:
        evaluate(toy_run, EvalConfig(k=3, zero_shot="classes"), cache_dir=cache_dir)
    assert error.value.hint == (
        "align-cache import FILE.npz --modality text --dataset classes --encoder text"
    )
    with pytest.raises(PairingError, match=r"toy/image@\w+ cannot be classified zero-shot: it has no labels"):
        evaluate(toy_run, EvalConfig(k=3, zero_shot="toy"), cache_dir=cache_dir)


def test_the_classes_of_cifar10_become_prompts_beside_its_images(cache_dir: Path, real_data: Path) -> None:
    images, prompts = run_extract(
        cache_dir, dataset="cifar10", data_dir=real_data / "cifar10", options={}, limit=20,
        encoders=("small-cnn", "small-text"),
    )  # fmt: skip
    assert (images.rows, prompts.rows) == (20, 10 * len(PHOTO_TEMPLATES))
    texts = FeatureSet.open(prompts.folder).texts
    assert texts is not None
    assert texts[0] == "a photo of a airplane."


def test_prompts_do_not_pass_for_captions(cache_dir: Path) -> None:
    run_extract(cache_dir, encoders=("small-cnn", "small-text"))
    flags = {"data.dataset": "shapes10", "data.image_encoder": "small-cnn", "data.text_encoder": "small-text"}
    with pytest.raises(PairingError, match="no image of shapes10/small-cnn") as error:
        fit(fit_config(flags={**flags, "data.reference": "small-cnn"}), cache_dir=cache_dir)
    assert error.value.hint is not None
    assert "class prompts are no captions" in error.value.hint
