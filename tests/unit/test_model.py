"""The model that comes of a run: what it encodes is what was trained on, in every form that a picture has."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align_cache.adapters.pair import fuse
from align_cache.adapters.run_adapters import load_pair
from align_cache.errors import (
    CacheError,
    EncoderError,
    NonFiniteError,
    RunError,
    SampleError,
    ShapeError,
    UsageError,
)
from align_cache.extraction.extracting import extract
from align_cache.metrics.zero_shot import zero_shot
from align_cache.pairing.embedding import embed
from align_cache.results import Run
from align_cache.settings import ExtractConfig, fit_config
from align_cache.training.fitting import fit
from align_cache.use.class_choice import choose
from align_cache.use.known_encoder import KnownEncoder
from align_cache.use.model import AlignedModel
from tests.unit.aligned import SETTINGS, extract_scenes, fit_scenes, scenes_of, sets_of
from tests.unit.stored import paired_sets

CLASSES = ("red circle", "blue square", "green_star")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache_dir = tmp_path_factory.mktemp("scenes")
    extract_scenes(cache_dir)
    return cache_dir


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    return fit_scenes(home, "small-text")


@pytest.fixture(scope="module")
def model(home: Path, run: Run) -> AlignedModel:
    return AlignedModel.from_run(run, cache_dir=home, device="cpu")


@pytest.fixture(scope="module")
def scenes(home: Path, run: Run) -> list[np.ndarray]:
    return scenes_of(home, run)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> AlignedModel:
    cache_dir = tmp_path_factory.mktemp("imported")
    paired_sets(cache_dir)
    encoders = {"data.dataset": "toy", "data.image_encoder": "image", "data.text_encoder": "text"}
    made = fit(fit_config(flags={**SETTINGS, **encoders}), cache_dir=cache_dir)
    return AlignedModel.from_run(made, cache_dir=cache_dir, device="cpu")


# What is encoded is rounded as it is stored: sums in another order, in fp32 or bf16, are all that differs.
@pytest.mark.parametrize("text", ["small-text", "lstm", "bow"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 5e-3)])
def test_the_datasets_own_pictures_and_captions_are_embedded_as_their_cached_features_are(
    cache_dir: Path, text: str, precision: str, tolerance: float
) -> None:
    extract_scenes(cache_dir, precision=precision)
    run = fit_scenes(cache_dir, text)
    model = AlignedModel.from_run(run, cache_dir=cache_dir, device="cpu")
    images, captions = sets_of(cache_dir, run)
    assert captions.texts is not None
    shown = model.encode_image(scenes_of(cache_dir, run), batch_size=7)
    said = model.encode_text(captions.texts.tolist(), batch_size=11)
    assert shown.dtype == said.dtype == np.float32
    np.testing.assert_allclose(
        shown, model.embed_image_features(images.take(np.arange(images.rows))), atol=tolerance
    )
    np.testing.assert_allclose(
        said, model.embed_text_features(captions.take(np.arange(captions.rows))), atol=tolerance
    )
    np.testing.assert_allclose(np.linalg.norm(said, axis=1), 1, atol=1e-6)


def test_pictures_are_decoded_and_resized_as_for_the_features(cache_dir: Path) -> None:
    pytest.importorskip("simplejpeg")
    extract_scenes(cache_dir, decode="fast", resize="squash", dtype="float32")
    run = fit_scenes(cache_dir, "small-text")
    model = AlignedModel.from_run(run, cache_dir=cache_dir, device="cpu")
    images, _ = sets_of(cache_dir, run)
    expected = model.embed_image_features(images.take(np.arange(images.rows)))
    np.testing.assert_allclose(model.encode_image(scenes_of(cache_dir, run)), expected, atol=1e-5)


def test_real_pictures_and_captions_are_embedded_as_their_cached_features_are(
    cache_dir: Path, real_data: Path
) -> None:
    weights = real_data / "mobilenet_v2-imagenet1k-dequantized.safetensors"
    config = ExtractConfig(
        dataset="flickr8k",
        data_dir=real_data / "flickr8k",
        encoders=("torchvision:mobilenet_v2", "tokens"),
        weights={"torchvision:mobilenet_v2": str(weights)},
        tokenizer=real_data / "bert-base-uncased-vocab",
        split=("train", "val"),
        limit=60,
        device="cpu",
    )
    extract(config, cache_dir=cache_dir)
    encoders = {"data.dataset": "flickr8k", "data.image_encoder": "torchvision:mobilenet_v2"}
    by_fraction = {"data.split": "fraction", "data.val_fraction": 0.3}
    run = fit_scenes(cache_dir, "lstm", **encoders, **by_fraction)
    model = AlignedModel.from_run(run, cache_dir=cache_dir, device="cpu")
    images, captions = sets_of(cache_dir, run)
    assert captions.texts is not None
    files = [real_data / "flickr8k" / "Images" / name for name in images.sample_ids.tolist()]
    rows, texts = np.arange(images.rows), np.arange(captions.rows)
    shown, said = model.encode_image(files), model.encode_text(captions.texts.tolist())
    np.testing.assert_allclose(shown, model.embed_image_features(images.take(rows)), atol=5e-3)
    np.testing.assert_array_equal(said, model.embed_text_features(captions.take(texts)))
    assert model.notes == ()


def test_features_are_embedded_as_the_adapters_alone_embed_them(
    home: Path, run: Run, model: AlignedModel
) -> None:
    images, captions = sets_of(home, run)
    pair, _ = load_pair(run)
    for adapter, features, embedded in (
        (pair.image, images.take(np.arange(30)), model.embed_image_features),
        (pair.text, captions.take(np.arange(70)), model.embed_text_features),
    ):
        with torch.inference_mode():
            expected = embed(adapter, torch.from_numpy(features).float()).numpy()
        np.testing.assert_array_equal(embedded(features), expected)
        np.testing.assert_array_equal(embedded(torch.from_numpy(features)), expected)
        np.testing.assert_allclose(embedded(features.astype(np.float64)), expected, atol=1e-7)


def test_a_picture_is_the_same_as_a_file_a_pil_image_and_an_array(
    tmp_path: Path, model: AlignedModel, scenes: list[np.ndarray]
) -> None:
    pixels = scenes[0]
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(pixels)))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    turned.save(tmp_path / "turned.png", exif=exif)
    opened = Image.open(tmp_path / "turned.png")
    clear = Image.fromarray(pixels).convert("RGBA")
    content = (tmp_path / "plain.png").read_bytes()
    forms = [pixels, tmp_path / "plain.png", str(tmp_path / "turned.png"), content, opened, clear, opened]
    embeddings = model.encode_image(forms)
    for row in embeddings[1:]:
        np.testing.assert_array_equal(row, embeddings[0])
    assert opened.getexif()[0x0112] == 6  # a caller's picture stays as it is


def test_a_sentence_alone_is_embedded_as_among_others(model: AlignedModel) -> None:
    texts = ["a red circle", "", "two blue squares above a green star, and a yellow one below"]
    together = model.encode_text(texts)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(model.encode_text([text])[0], row, atol=1e-5)


def test_nothing_gives_no_rows(model: AlignedModel) -> None:
    for rows in (
        model.encode_image([]),
        model.encode_text([]),
        model.embed_image_features(np.zeros((0, model.image_encoder.dim), np.float16)),
        model.embed_text_features(np.zeros((0, model.text_encoder.dim), np.float32)),
    ):
        assert rows.shape == (0, model.embed_dim)
        assert model.similarity(rows, rows).shape == (0, 0)


def test_tensors_come_where_they_are_asked_for_and_can_be_trained_on(
    model: AlignedModel, scenes: list[np.ndarray]
) -> None:
    images = model.encode_image(scenes[:3], as_torch=True)
    texts = model.encode_text(["a red circle"] * 2, as_torch=True)
    assert images.device == model.device
    weight = torch.ones(1, requires_grad=True)
    fuse(images[:2] * weight, texts).sum().backward()
    assert weight.grad is not None
    expected = images.numpy() @ texts.numpy().T
    np.testing.assert_allclose(model.similarity(images, texts.numpy()), expected, atol=1e-6)


def test_zero_shot_ranks_classes_as_the_metric_does(
    home: Path, run: Run, model: AlignedModel, scenes: list[np.ndarray]
) -> None:
    templates = ("a {}.", "there is a {} here.")
    found = model.zero_shot(scenes, CLASSES, templates, top=2)
    assert found.names == CLASSES
    assert found.classes.shape == found.probabilities.shape == (len(scenes), 2)
    prompts = [sentence.replace("{}", name.replace("_", " ")) for name in CLASSES for sentence in templates]
    labels = found.classes[:, 0]
    judged = zero_shot(model.encode_image(scenes), labels, model.encode_text(prompts), [0, 0, 1, 1, 2, 2])
    assert judged.accuracy == 1.0
    assert found.top() == [CLASSES[label] for label in labels]
    whole = model.zero_shot(scenes[:4], CLASSES, templates).probabilities
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-6)
    assert (np.diff(whole, axis=1) <= 0).all()


def test_classes_are_called_without_the_spaces_around_them(
    model: AlignedModel, scenes: list[np.ndarray]
) -> None:
    found = model.zero_shot(scenes[:3], ["red circle", " blue square ", "green_star\n"])
    assert found.names == CLASSES
    np.testing.assert_array_equal(found.classes, model.zero_shot(scenes[:3], CLASSES).classes)


@pytest.mark.parametrize("temperature", [1e-4, 1.0])
def test_classes_are_ranked_by_cosine_and_of_equals_the_earlier_stands_first(temperature: float) -> None:
    """Far classes have a probability of zero at a low temperature, all of them alike."""
    cosines = np.float32([0.1, -0.5, 0.9, -0.5, 0.3, -0.9, 0.3])
    heads = torch.from_numpy(np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1))
    images = torch.tensor([[1.0, 0.0]]).repeat(5000, 1)  # more than a block
    found = choose(images, heads, list("abcdefg"), temperature=temperature, top=6)
    assert found.classes.shape == (5000, 6)
    assert (found.classes == [2, 4, 6, 0, 1, 3]).all()
    wanted = torch.softmax(images[:1] @ heads.T / temperature, dim=1)[0, found.classes[0]].numpy()
    np.testing.assert_allclose(found.probabilities[-1], wanted, atol=1e-7)


@pytest.mark.parametrize(
    ("classes", "templates"),
    [("cat", ("a {}.",)), (["cat"], ("a {}.",)), (["cat", "cat"], ("a {}.",)), (["cat", " "], ("a {}.",)),
     (["t shirt", "t_shirt"], ("a {}.",)), (["cat", "cat "], ("a {}.",)),
     (["cat", "dog"], ("a cat.",)), (["cat", "dog"], ())],
)  # fmt: skip
def test_classes_and_templates_that_cannot_be_meant_are_refused(
    model: AlignedModel, classes: list[str], templates: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=r"classes|templates"):
        model.zero_shot([], classes, templates)


def test_sizes_below_one_are_refused(model: AlignedModel, scenes: list[np.ndarray]) -> None:
    with pytest.raises(UsageError, match="batch_size = 0"):
        model.encode_image(scenes, batch_size=0)
    with pytest.raises(UsageError, match="batch_size = -1"):
        model.encode_text(["a"], batch_size=-1)
    with pytest.raises(UsageError, match="top = 0"):
        model.zero_shot([], CLASSES, top=0)
    assert model.zero_shot([], CLASSES).classes.shape == (0, 3)


def test_a_bar_is_told_of_every_picture_and_sentence(model: AlignedModel, scenes: list[np.ndarray]) -> None:
    seen: list[Any] = []

    class Counting:
        def advance(self, count: int = 1) -> None:
            seen.append(count)

    @contextmanager
    def bar(total: int, description: str, unit: str) -> Iterator[Counting]:
        seen.append((total, description, unit))
        yield Counting()

    model.encode_image(scenes[:5], batch_size=2, progress=bar)
    model.encode_text(["a"] * 3, progress=bar)
    assert seen == [(5, "small-cnn", "images"), 2, 2, 1, (3, "small-text", "texts"), 3]


def test_what_cannot_be_read_is_named(model: AlignedModel, tmp_path: Path, scenes: list[np.ndarray]) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    for wrong, named in (
        (tmp_path / "torn.png", "torn.png"),
        (tmp_path / "absent.png", "absent.png: the file cannot be read"),
        (np.zeros((4, 4), np.uint8), "image 1: expected uint8 RGB"),
        (np.zeros((4, 4, 3), np.float32), "image 1: expected uint8 RGB"),
        ("no\0path.png", "the file cannot be read"),
        (3, "image 1 is a int, expected a path"),
    ):
        with pytest.raises(SampleError, match=named):
            model.encode_image([scenes[0], wrong])  # type: ignore[list-item]
    cut = Image.open(_cut(tmp_path, scenes[0]))
    with cut, pytest.raises(SampleError, match="image 0: the image cannot be decoded"):
        model.encode_image([cut])
    with pytest.raises(SampleError, match="no text"):
        model.encode_text(["fine", None])  # type: ignore[list-item]


def _cut(folder: Path, pixels: np.ndarray) -> Path:
    whole, cut = folder / "whole.png", folder / "cut.png"
    Image.fromarray(pixels).save(whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    return cut


def test_one_thing_in_place_of_a_list_is_refused(model: AlignedModel, scenes: list[np.ndarray]) -> None:
    for one in ("dog.jpg", b"GIF", Path("dog.jpg"), Image.fromarray(scenes[0]), scenes[0]):
        with pytest.raises(UsageError, match="expected a list"):
            model.encode_image(one)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected a list"):
        model.encode_text("a dog")


def test_features_that_adapters_were_not_trained_on_are_refused(model: AlignedModel) -> None:
    dim = model.image_encoder.dim
    fine = np.eye(dim, dtype=np.float32)[:3]
    broken = fine.copy()
    broken[1, 0] = np.nan
    for wrong, error, named in (
        (fine[:, :-1], ShapeError, r"shape \(3, \d+\), expected \(n, \d+\)"),
        (fine[0], ShapeError, "expected"),
        (fine * 2, ShapeError, "row 0 of image features has norm 2, expected 1"),
        (fine.astype(np.int64), ShapeError, "expected floats"),
        (np.full((1, dim), "x"), ShapeError, "expected numbers"),
        (broken, NonFiniteError, "NaN"),
    ):
        with pytest.raises(error, match=named):
            model.embed_image_features(wrong)
    with pytest.raises(ShapeError, match="image embeddings have shape"):
        model.similarity(fine, fine)


def test_token_ids_that_a_tower_does_not_know_are_refused(home: Path) -> None:
    model = AlignedModel.from_run(fit_scenes(home, "bow"), cache_dir=home, device="cpu")
    dim, vocabulary = model.text_encoder.dim, model.text_encoder.identity["vocabulary_size"]
    ids = np.zeros((2, dim), np.int32)
    ids[:, 0] = 7
    assert model.embed_text_features(ids).shape == (2, model.embed_dim)
    for place, value, named in (
        ((1, 3), vocabulary, f"row 1 of token ids has token id {vocabulary}, expected 0 to"),
        ((1, 3), -1, "row 1 of token ids has token id -1"),
        ((1, 0), 0, "row 1 of token ids has no token"),
        ((1, 3), 9, "row 1 of token ids has a token after padding"),
    ):
        wrong = ids.copy()
        wrong[place] = value
        with pytest.raises(ShapeError, match=named):
            model.embed_text_features(wrong)
    with pytest.raises(ShapeError, match="expected the token ids"):
        model.embed_text_features(ids.astype(np.float32))


@pytest.mark.parametrize("text", ["lstm", "bow"])
def test_no_token_ids_give_no_rows(home: Path, text: str) -> None:
    model = AlignedModel.from_run(fit_scenes(home, text), cache_dir=home, device="cpu")
    nothing = np.zeros((0, model.text_encoder.dim), np.int32)
    assert model.embed_text_features(nothing).shape == (0, model.embed_dim)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "f2", "g"])
def test_features_may_be_floats_of_any_width_and_byte_order(model: AlignedModel, dtype: str) -> None:
    rows = np.eye(model.image_encoder.dim)[:3]
    np.testing.assert_array_equal(
        model.embed_image_features(rows.astype(dtype)), model.embed_image_features(rows)
    )


def test_imported_features_are_embedded_and_nothing_is_encoded(imported: AlignedModel) -> None:
    assert imported.image_encoder.request is None
    assert imported.embed_text_features(np.eye(10)[:4]).shape == (4, imported.embed_dim)
    with pytest.raises(EncoderError, match="image features were imported as image") as caught:
        imported.encode_image(["dog.jpg"])
    assert caught.value.hint is not None
    assert "embed_image_features" in caught.value.hint
    with pytest.raises(EncoderError, match="text features were imported as text"):
        imported.encode_text(["a dog"])


def test_an_encoder_is_loaded_when_it_is_needed_and_once(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = KnownEncoder.load

    def counting(known: KnownEncoder, device: torch.device) -> object:
        loaded.append(known.name)
        return load(known, device)

    monkeypatch.setattr(KnownEncoder, "load", counting)
    model = AlignedModel.from_run(run, cache_dir=home, device="cpu")
    assert loaded == []
    for _ in range(2):
        model.encode_text(["a red circle"])
    assert loaded == ["small-text"]


def test_a_model_goes_to_another_process(home: Path, run: Run) -> None:
    fresh = AlignedModel.from_run(run, cache_dir=home, device="cpu")
    texts = ["a red circle", "two blue squares"]
    before = pickle.loads(pickle.dumps(fresh)).encode_text(texts)  # which then counts the vocabulary itself
    np.testing.assert_array_equal(before, fresh.encode_text(texts))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fresh)).encode_text(texts), before)


def test_a_model_says_what_is_to_be_known_of_it(model: AlignedModel, imported: AlignedModel) -> None:
    assert model.notes == (
        "the image encoder small-cnn is untrained",
        "the text encoder small-text is untrained",
    )
    assert imported.notes == ()
    noisy = replace(model.image_encoder, untrained=False, noise="blur:3", precision="bf16")
    slow = torch.device("meta")  # none that is known to be fast
    assert [note.partition(" ")[0] for note in noisy.notes(slow)] == ["the", "small-cnn"]
    assert "with blur:3" in noisy.notes(slow)[0]
    assert "small-cnn + small-text → 24, run linear-" in repr(model)
    assert model.temperature == pytest.approx(0.15)


def test_a_run_is_found_by_name_and_what_is_not_there_is_named(home: Path, run: Run, cache_dir: Path) -> None:
    found = AlignedModel.from_run(run.id[:-2], cache_dir=str(home), device="cpu", checkpoint="last")
    assert found.source == f"run {run.id}, last epoch 2"
    with pytest.raises(RunError, match="no runs in"):
        AlignedModel.from_run(cache_dir=cache_dir)
    with pytest.raises(CacheError, match="no feature set of shapes"):
        AlignedModel.from_run(run, cache_dir=cache_dir)
