"""Captions that are in the cache already, encoded again: ``--captions-of``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_cache.errors import CacheError, SourceError, UsageError
from align_cache.extraction.external import import_features
from align_cache.extraction.extracting import Extracted, extract
from align_cache.extraction.stored_captions import captions_source
from align_cache.pairing.pairs import join
from align_cache.settings import ExtractConfig
from align_cache.store import FeatureSet, open_feature_set
from tests.unit.stored import unit_rows

IDS = ["one.jpg", "two.jpg", "three.jpg"]
TEXTS = ["a dog", "dogs", "", "a cat on a mat", "two cats"]
GROUPS = ["two.jpg", "one.jpg", "two.jpg", "three.jpg", "one.jpg"]
SPLITS = ["train", "val", "train", "test", "val"]


def bring_in(cache_dir: Path, *, modality: Any = "text", name: str = "words", **columns: Any) -> FeatureSet:
    n = len(columns["sample_id"])
    file = cache_dir / f"{name}.npz"
    np.savez(file, features=unit_rows(np.random.default_rng(n), n, 4), **columns)
    imported = import_features(file, dataset="mine", encoder=name, modality=modality, cache_dir=cache_dir)
    return FeatureSet.open(imported.folder)


@pytest.fixture
def words(cache_dir: Path) -> FeatureSet:
    """Five imported captions of three images, not in the order of the images."""
    names = [f"{group}#{i}" for i, group in enumerate(GROUPS)]
    return bring_in(cache_dir, sample_id=names, group_id=GROUPS, split=SPLITS, text=TEXTS)


def run(cache_dir: Path, **changes: Any) -> list[Extracted]:
    base = {"dataset": "mine", "captions_of": "mine/words", "encoders": ("tokens",), "device": "cpu"}
    return extract(ExtractConfig(**{**base, **changes}), cache_dir=cache_dir)


def test_imported_captions_are_encoded_under_their_ids(cache_dir: Path, words: FeatureSet) -> None:
    (made,) = run(cache_dir)
    tokens = FeatureSet.open(made.folder)
    assert tokens.holds_tokens
    for column in ("sample_ids", "group_ids", "splits", "texts"):
        assert getattr(tokens, column).tolist() == getattr(words, column).tolist()
    assert (tokens.array() > 0).sum(axis=1).tolist() == [4, 3, 2, 7, 4]


def test_any_text_encoder_reads_them(cache_dir: Path, words: FeatureSet) -> None:
    small, tokens = run(cache_dir, encoders=("small-text", "tokens"), weights={"small-text": "random"})
    assert (small.rows, small.untrained, tokens.rows) == (5, True, 5)
    assert FeatureSet.open(small.folder).sample_ids.tolist() == words.sample_ids.tolist()


def test_they_pair_with_the_images_of_their_dataset(cache_dir: Path, words: FeatureSet) -> None:
    images = bring_in(cache_dir, modality="image", name="pictures", sample_id=IDS)
    run(cache_dir)
    joined = join(images, open_feature_set("mine", "tokens", cache_dir=cache_dir), None)
    assert joined.pairs.n_images == 3
    assert joined.pairs.n_captions == len(TEXTS)


def test_where_they_came_from_is_recorded(cache_dir: Path, words: FeatureSet) -> None:
    (made,) = run(cache_dir)
    provenance = json.loads((made.folder / "provenance.json").read_text())
    assert provenance["source"] == {"captions_of": words.name}


@pytest.mark.parametrize(
    ("part", "texts"),
    [
        ({"split": ("val",)}, ["dogs", "two cats"]),
        ({"split": ("dev", "test")}, ["dogs", "a cat on a mat", "two cats"]),
        ({"limit": 1}, ["a dog", ""]),
        ({"limit": 2}, ["a dog", "dogs", "", "two cats"]),
        ({"limit": 9}, TEXTS),
    ],
    ids=str,
)
def test_a_part_is_taken_by_image(
    cache_dir: Path, words: FeatureSet, part: dict[str, Any], texts: list[str]
) -> None:
    (made,) = run(cache_dir, **part)
    found = FeatureSet.open(made.folder).texts
    assert found is not None
    assert found.tolist() == texts


def test_a_split_that_is_not_there_is_refused(cache_dir: Path, words: FeatureSet) -> None:
    with pytest.raises(UsageError, match="no images in split other; its splits: test, train, val"):
        run(cache_dir, split=("other",))


@pytest.mark.parametrize(
    "part", [{}, {"split": ("val",)}, {"limit": 6}, {"split": ("train",), "limit": 5}], ids=str
)
def test_the_same_captions_have_one_key_from_the_dataset_and_from_the_cache(
    cache_dir: Path, part: dict[str, Any]
) -> None:
    drawn = {"dataset": "shapes", "options": {"count": 20}, "device": "cpu", **part}
    text, tokens = extract(
        ExtractConfig(encoders=("small-text", "tokens"), weights={"small-text": "random"}, **drawn),
        cache_dir=cache_dir,
    )
    (again,) = extract(
        ExtractConfig(dataset="shapes", captions_of=text.name, encoders=("tokens",)), cache_dir=cache_dir
    )
    assert (again.key, again.status) == (tokens.key, "already there")


def test_a_part_of_what_is_a_part_already_is_refused(cache_dir: Path) -> None:
    extract(
        ExtractConfig(dataset="shapes", options={"count": 20}, limit=5, encoders=("tokens",)),
        cache_dir=cache_dir,
    )
    with pytest.raises(UsageError, match=r"is a part of shapes itself \(splits None, limit 5\)"):
        run(cache_dir, dataset="shapes", captions_of="shapes/tokens", split=("train",))


def test_class_prompts_keep_their_labels_and_have_one_key(cache_dir: Path) -> None:
    drawn = ExtractConfig(dataset="shapes10", options={"count": 60}, encoders=("tokens",))
    (prompts,) = extract(drawn, cache_dir=cache_dir)
    (again,) = run(cache_dir, dataset="shapes10", captions_of="shapes10/tokens", limit=3, max_length=64)
    assert (again.key, again.status) == (prompts.key, "already there")
    (longer,) = run(cache_dir, dataset="shapes10", captions_of=prompts.name, max_length=65)
    one, other = FeatureSet.open(prompts.folder), FeatureSet.open(longer.folder)
    assert one.labels is not None
    assert other.labels is not None
    assert (one.labels == other.labels).all()
    assert one.label_names == other.label_names


def test_image_encoders_are_refused(cache_dir: Path, words: FeatureSet) -> None:
    with pytest.raises(UsageError, match=r"small-cnn encodes images, and mine/words@.* gives captions alone"):
        run(cache_dir, encoders=("tokens", "small-cnn"), weights={"small-cnn": "random"})
    with pytest.raises(SourceError, match="a name alone"):
        captions_source(words).read_image(0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dataset": "other"}, "expected other/ENCODER"),
        ({"data_dir": Path("pictures")}, "where data_dir has no meaning"),
        ({"revision": "main"}, "where revision has no meaning"),
        ({"name": "theirs"}, "where name has no meaning"),
        ({"options": {"count": 3}}, "where options has no meaning"),
        ({"templates": ("a {}",)}, "where templates has no meaning"),
    ],
    ids=str,
)
def test_settings_of_a_dataset_that_is_opened_are_refused(change: dict[str, Any], problem: str) -> None:
    base = {"dataset": "mine", "captions_of": "mine/words", "encoders": ("tokens",)}
    with pytest.raises(ValueError, match=problem):
        ExtractConfig(**{**base, **change})


def test_a_set_without_captions_is_refused(cache_dir: Path) -> None:
    bring_in(cache_dir, modality="image", name="pictures", sample_id=IDS)
    with pytest.raises(UsageError, match=r"captions_of: mine/pictures@\w+ holds no captions"):
        run(cache_dir, captions_of="mine/pictures")


def test_a_set_that_is_not_there_is_refused(cache_dir: Path, words: FeatureSet) -> None:
    with pytest.raises(CacheError, match=r"no feature set of mine by word in .*: there are words"):
        run(cache_dir, captions_of="mine/word")


def test_a_caption_without_a_token_is_refused_by_name(
    cache_dir: Path, words: FeatureSet, tmp_path: Path
) -> None:
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CacheError, match=r"sample 'two\.jpg#2' has no token"):
        run(cache_dir, tokenizer=tmp_path)


def test_whoever_looks_for_ids_of_an_imported_dataset_is_told_how_to_make_them(
    cache_dir: Path, words: FeatureSet
) -> None:
    with pytest.raises(CacheError) as caught:
        open_feature_set("mine", "tokens", cache_dir=cache_dir)
    assert caught.value.hint == "align-cache extract --captions-of mine/words --dataset mine --encoder tokens"


def test_noisy_captions_are_refused(cache_dir: Path) -> None:
    (noisy,) = extract(
        ExtractConfig(dataset="shapes", options={"count": 4}, encoders=("tokens",), caption_noise="drop:0.5"),
        cache_dir=cache_dir,
    )
    with pytest.raises(UsageError, match="holds captions with noise, expected every caption"):
        run(cache_dir, dataset="shapes", captions_of=noisy.name)
