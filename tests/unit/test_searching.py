"""Search: what is found, where it lies, which features are searched, and what is refused."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align_cache.cli import main
from align_cache.errors import CacheError, EncoderError, SampleError, UsageError
from align_cache.extraction.external import import_features
from align_cache.store import FeatureSet, find
from align_cache.use.found import Found
from align_cache.use.model import AlignedModel
from align_cache.use.search_page import publish_search
from align_cache.use.searching import Collection, search
from tests.unit.drawn_folder import PICTURES, extract_scenes, fit_scenes, write_scenes

SENTENCES = ["a red circle", "a small blue square above a green triangle"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scenes, their features, and a run on them; nothing in it is to be changed."""
    place = tmp_path_factory.mktemp("search")
    write_scenes(place / "scenes")
    extract_scenes(place / "scenes", place / "cache")
    fit_scenes(place / "cache")
    return place


@pytest.fixture(scope="module")
def model(made: Path) -> AlignedModel:
    return AlignedModel.from_run(cache_dir=made / "cache", device="cpu")


@pytest.fixture
def own_cache(made: Path, cache_dir: Path) -> Path:
    """A copy of the cache that may be changed."""
    shutil.copytree(made / "cache", cache_dir, dirs_exist_ok=True)
    return cache_dir


def features_of(cache_dir: Path, modality: str) -> FeatureSet:
    (stored,) = [each for each in find(cache_dir, dataset="scenes") if each.manifest.modality == modality]
    return FeatureSet.open(stored.folder)


def looked_for(found: Found, place: int = 0) -> list[str]:
    return [hit.sample_id for hit in found.answers[place].hits]


def test_a_sentence_finds_the_images_whose_cached_embeddings_are_nearest(
    made: Path, model: AlignedModel
) -> None:
    found = search(model, SENTENCES, cache_dir=made / "cache", k=7)
    image = features_of(made / "cache", "image")
    cosines = model.encode_text(SENTENCES) @ model.embed_image_features(image.array()).T
    for place, row in enumerate(cosines):
        best = np.argsort(-row, kind="stable")[:7]
        assert looked_for(found, place) == image.sample_ids[best].tolist()
        similarity = [hit.similarity for hit in found.answers[place].hits]
        np.testing.assert_allclose(similarity, row[best], atol=1e-5)
    assert (found.find, found.n_candidates, found.features) == ("images", PICTURES, image.name)
    assert found.untrained == ("small-cnn",)


def test_an_image_is_shown_with_its_first_caption_and_its_file(made: Path, model: AlignedModel) -> None:
    found = search(model, SENTENCES[:1], cache_dir=made / "cache", k=3)
    text = features_of(made / "cache", "text")
    assert text.texts is not None
    assert text.group_ids is not None
    for rank, hit in enumerate(found.answers[0].hits, start=1):
        first = text.texts[text.group_ids.tolist().index(hit.sample_id)]
        assert (hit.rank, hit.image_id, hit.caption) == (rank, hit.sample_id, first)
        assert hit.file == made / "scenes" / "images" / hit.sample_id


def test_an_image_has_its_caption_where_another_text_set_holds_few_of_them(
    made: Path, model: AlignedModel, own_cache: Path
) -> None:
    """A set that comes first by name was extracted of four images."""
    encoders, weights = ("small-text",), {"small-text": "random"}
    extract_scenes(made / "scenes", own_cache, encoders=encoders, weights=weights, limit=4)
    names = [each.manifest.encoder for each in find(own_cache, dataset="scenes")]
    assert names.index("small-text") < names.index("tokens")
    found = search(model, SENTENCES[:1], cache_dir=own_cache, k=PICTURES)
    assert all(hit.caption for hit in found.answers[0].hits)


def test_an_image_finds_captions_and_itself_among_the_images(made: Path, model: AlignedModel) -> None:
    file = made / "scenes" / "images" / "drawn" / "007.png"
    captions = search(model, [file], cache_dir=str(made / "cache"), k=5)
    text = features_of(made / "cache", "text")
    assert captions.find == "captions"
    assert captions.n_candidates == text.rows
    for hit in captions.answers[0].hits:
        row = text.sample_ids.tolist().index(hit.sample_id)
        assert text.texts is not None
        assert text.group_ids is not None
        assert (hit.caption, hit.image_id) == (text.texts[row], text.group_ids[row])
    with Image.open(file) as opened:
        pixels = np.asarray(opened.convert("RGB"))
        images = search(model, [file, opened, pixels], cache_dir=made / "cache", find="images", k=1)
    assert [answer.hits[0].sample_id for answer in images.answers] == ["drawn/007.png"] * 3
    assert [answer.query for answer in images.answers] == [str(file), "image 1", "image 2"]
    assert images.answers[0].hits[0].similarity == pytest.approx(1, abs=1e-3)


def test_sentences_and_images_are_searched_together_once_it_is_said_for_what(
    made: Path, model: AlignedModel
) -> None:
    file = made / "scenes" / "images" / "drawn" / "003.png"
    queries: list[Any] = [SENTENCES[0], file, SENTENCES[1]]
    with pytest.raises(UsageError, match="say what they are to find"):
        search(model, queries, cache_dir=made / "cache")
    together = search(model, queries, cache_dir=made / "cache", find="captions", k=4)
    alone = [search(model, [query], cache_dir=made / "cache", find="captions", k=4) for query in queries]
    assert [looked_for(together, place) for place in range(3)] == [looked_for(each) for each in alone]


def test_a_split_holds_only_its_own_rows(made: Path, model: AlignedModel) -> None:
    found = search(model, SENTENCES, cache_dir=made / "cache", split="test", k=100)
    expected = {f"drawn/{row:03d}.png" for row in range(4, PICTURES, 5)}
    assert set(looked_for(found)) == expected
    assert found.n_candidates == len(expected) == len(looked_for(found))
    with pytest.raises(UsageError, match="no split dev2; its splits: test, train, val"):
        search(model, SENTENCES, cache_dir=made / "cache", split="dev2")


def test_another_dataset_is_searched_by_the_command_that_the_refusal_names(
    made: Path, model: AlignedModel, own_cache: Path
) -> None:
    with pytest.raises(CacheError, match="shapes has no features by the model's own small-cnn") as raised:
        search(model, SENTENCES, cache_dir=own_cache, dataset="shapes")
    assert raised.value.hint is not None
    words = shlex.split(raised.value.hint)[1:]
    assert main([*words, "--limit", "9", "--set", "options.count=9", "--cache-dir", str(own_cache)]) == 0
    found = search(model, SENTENCES, cache_dir=own_cache, dataset="shapes")
    assert found.n_candidates == 9
    assert all(hit.file is None and hit.caption is None for hit in found.answers[0].hits)


def test_of_several_sets_by_one_encoder_the_largest_is_searched_and_the_note_names_the_others(
    made: Path, model: AlignedModel, own_cache: Path
) -> None:
    extract_scenes(made / "scenes", own_cache, encoders=("small-cnn",), limit=10)
    found = search(model, SENTENCES, cache_dir=own_cache)
    assert found.n_candidates == PICTURES
    assert any("by the same encoder there are also scenes/small-cnn@" in note for note in found.notes)


def test_features_of_another_encoder_are_never_searched(
    made: Path, model: AlignedModel, own_cache: Path
) -> None:
    extract_scenes(
        made / "scenes", own_cache, encoders=("small-cnn",), weights={"small-cnn": "random:7"}, name="other"
    )
    with pytest.raises(CacheError, match="there are other/small-cnn@"):
        search(model, SENTENCES, cache_dir=own_cache, dataset="other")


def test_what_extraction_skipped_is_said_to_be_missing(
    model: AlignedModel, own_cache: Path, tmp_path: Path
) -> None:
    write_scenes(tmp_path / "holed", pictures=6)
    (tmp_path / "holed" / "images" / "drawn" / "002.png").write_bytes(b"no picture")
    extract_scenes(tmp_path / "holed", own_cache, encoders=("small-cnn",), name="holed", on_error="skip")
    found = search(model, SENTENCES, cache_dir=own_cache, dataset="holed")
    assert len(looked_for(found)) == 5
    assert any("1 samples were skipped" in note for note in found.notes)


def test_class_prompts_belong_to_no_image(model: AlignedModel, own_cache: Path) -> None:
    (captions,) = [each for each in find(own_cache, dataset="scenes") if each.manifest.modality == "text"]
    words = f"scenes/tokens@{captions.manifest.key}"
    line = f"extract --dataset shapes10 --encoder tokens --vocabulary {words} --cache-dir {own_cache}"
    assert main(line.split()) == 0
    found = search(model, SENTENCES[:1], cache_dir=own_cache, dataset="shapes10", find="captions", k=3)
    assert all(hit.image_id is None and hit.file is None and hit.caption for hit in found.answers[0].hits)


def test_imported_images_are_found_by_sentences_and_the_note_says_what_is_taken_for_granted(
    own_cache: Path, tmp_path: Path
) -> None:
    """Nothing says what made imported features: another set of the same name and width is searched, noted."""
    image = features_of(own_cache, "image")
    assert image.splits is not None
    arrays = {"sample_id": image.sample_ids, "features": image.array(), "split": image.splits}
    for dataset, rows in (("scenes", slice(None)), ("more", slice(0, 9)), ("more", slice(9, 13))):
        np.savez(tmp_path / "rows.npz", **{name: array[rows] for name, array in arrays.items()})
        import_features(
            tmp_path / "rows.npz", dataset=dataset, encoder="made", modality="image", cache_dir=own_cache
        )
    fit_scenes(own_cache, **{"data.image_encoder": "made"})
    model = AlignedModel.from_run(cache_dir=own_cache, device="cpu")
    assert search(model, SENTENCES, cache_dir=own_cache).notes == ()
    more = search(model, SENTENCES, cache_dir=own_cache, dataset="more")
    assert more.n_candidates == 9
    assert any("imported features do not say what made them" in note for note in more.notes)
    smaller = min(find(own_cache, dataset="more"), key=lambda stored: stored.manifest.rows).manifest
    assert any(note.endswith(f"there are also {smaller.name}") for note in more.notes)
    with pytest.raises(EncoderError, match="were imported as made"):
        search(model, [np.zeros((8, 8, 3), np.uint8)], cache_dir=own_cache)


@pytest.mark.parametrize(
    ("queries", "k", "said"),
    [
        ([], 3, "nothing to search for"),
        (["a dog", " "], 3, "query 1 is an empty sentence"),
        (["a dog"], 0, "k is 0"),
        ("a dog", 3, "expected a list"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(
    made: Path, model: AlignedModel, queries: list[str], k: int, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        search(model, queries, cache_dir=made / "cache", k=k)


def test_an_image_that_cannot_be_decoded_is_named(made: Path, model: AlignedModel, tmp_path: Path) -> None:
    file = tmp_path / "torn.jpg"
    file.write_bytes(b"\xff\xd8\xff\xe0 and no more")
    with pytest.raises(SampleError, match=re.escape(str(file))):
        search(model, [file], cache_dir=made / "cache")


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")
def test_faiss_finds_the_same_as_the_exact_index(made: Path, model: AlignedModel) -> None:
    exact, flat = (Collection(model, cache_dir=made / "cache", index=name) for name in ("exact", "faiss"))
    for sentences in (SENTENCES, ["a green triangle"]):
        expected, found = (each.search(sentences, k=6).answers for each in (exact, flat))
        assert [[hit.sample_id for hit in answer.hits] for answer in found] == [
            [hit.sample_id for hit in answer.hits] for answer in expected
        ]


def test_the_page_holds_every_picture_and_loads_nothing(
    made: Path, model: AlignedModel, tmp_path: Path
) -> None:
    found = search(model, ["<script>alert(1)</script>"], cache_dir=made / "cache", k=4)
    page = publish_search(found, tmp_path / "deep" / "found.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "UNTRAINED: small-cnn" in page
    assert all(hit.caption is not None and hit.caption in page for hit in found.answers[0].hits)


def test_the_page_of_an_image_query_shows_it_beside_captions_and_their_pictures(
    made: Path, model: AlignedModel, tmp_path: Path
) -> None:
    file = made / "scenes" / "images" / "drawn" / "011.png"
    found = search(model, [file], cache_dir=made / "cache", k=4)
    page = publish_search(found, tmp_path / "found.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 5
    assert "searched with" in page


def test_without_its_pictures_a_page_says_why(
    model: AlignedModel, own_cache: Path, made: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(made / "scenes", moved)
    extract_scenes(moved, own_cache, name="moved")
    shutil.rmtree(moved)
    found = search(model, SENTENCES[:1], cache_dir=own_cache, dataset="moved", k=2)
    page = publish_search(found, tmp_path / "found.html").read_text(encoding="utf-8")
    assert "data:image/png" not in page
    assert f"{moved} is not a folder" in page
    assert found.answers[0].hits[0].sample_id in page
