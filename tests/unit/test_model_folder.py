"""A saved model: the same embeddings from its folder; what is damaged, forged or elsewhere is said so."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file

from align_cache.encoders.tokenizer import portable_files
from align_cache.errors import (
    AlignCacheError,
    CacheError,
    CorruptError,
    EncoderError,
    OfflineError,
    SourceError,
    UsageError,
)
from align_cache.extraction.extracting import extract
from align_cache.judging.evaluation import evaluate
from align_cache.settings import EvalConfig, ExtractConfig, fit_config
from align_cache.training.fitting import fit
from align_cache.use import model_folder
from align_cache.use.model import AlignedModel
from tests.unit.aligned import SETTINGS, extract_scenes, fit_scenes, scenes_of, sets_of
from tests.unit.stored import paired_sets

Change = Callable[[Any], object]
TEXTS = ["a red circle", "", "Two blue squares; a green star!", "zebra"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache_dir = tmp_path_factory.mktemp("scenes")
    extract_scenes(cache_dir)
    return cache_dir


@pytest.fixture(scope="module")
def saved(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind of text side."""
    folders = {}
    for text in ("small-text", "lstm", "bow"):
        model = AlignedModel.from_run(fit_scenes(home, text), cache_dir=home, device="cpu")
        folders[text] = tmp_path_factory.mktemp(text)
        model.save_pretrained(folders[text])
    return folders


@pytest.fixture
def folder(saved: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved["bow"], tmp_path / "model"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def forge(folder: Path, change: Change) -> None:
    """Change config.json, with the checksums of whatever lies there now."""
    document = json.loads((folder / "config.json").read_text())
    for name in document["files"]:
        document["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change(document)
    (folder / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize("text", ["small-text", "lstm", "bow"])
def test_a_saved_model_gives_the_same_bits(
    home: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fit_scenes(home, text)
    model = AlignedModel.from_run(run, cache_dir=home, device="cpu")
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(model_folder, "fetch_snapshot", None)  # a folder asks nobody
    again = AlignedModel.from_pretrained(tmp_path / "model", device="cpu")
    images, captions = sets_of(home, run)
    features, rows = images.take(np.arange(20)), captions.take(np.arange(50))
    scenes = scenes_of(home, run)[:9]
    np.testing.assert_array_equal(again.embed_image_features(features), model.embed_image_features(features))
    np.testing.assert_array_equal(again.embed_text_features(rows), model.embed_text_features(rows))
    np.testing.assert_array_equal(again.encode_image(scenes), model.encode_image(scenes))
    np.testing.assert_array_equal(again.encode_text(TEXTS), model.encode_text(TEXTS))
    assert again.config == model.config
    assert again.temperature == model.temperature
    assert again.image_encoder.identity == model.image_encoder.identity
    again.save_pretrained(tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(tmp_path / "model")


def test_imported_features_have_no_encoder_to_save(tmp_path: Path, cache_dir: Path) -> None:
    paired_sets(cache_dir)
    encoders = {"data.dataset": "toy", "data.image_encoder": "image", "data.text_encoder": "text"}
    run = fit(fit_config(flags={**SETTINGS, **encoders, "adapter.type": "mlp"}), cache_dir=cache_dir)
    model = AlignedModel.from_run(run, cache_dir=cache_dir, device="cpu")
    model.save_pretrained(tmp_path / "model")
    again = AlignedModel.from_pretrained(tmp_path / "model", device="cpu")
    rows = np.eye(12, dtype=np.float16)
    np.testing.assert_array_equal(again.embed_image_features(rows), model.embed_image_features(rows))
    with pytest.raises(EncoderError, match="imported as text"):
        again.encode_text(["a dog"])
    with pytest.raises(EncoderError, match="imported as image"):
        AlignedModel.from_pretrained(tmp_path / "model", weights={"image": "x.pth"})
    assert "embed_text_features" in (tmp_path / "model" / "README.md").read_text()


def test_a_model_that_is_saved_over_another_leaves_nothing_of_it(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    for text in ("bow", "small-text"):
        AlignedModel.from_pretrained(saved[text], device="cpu").save_pretrained(tmp_path)
    assert files_of(tmp_path) == files_of(saved["small-text"])


def test_a_tokenizer_of_the_users_own_goes_with_the_model(cache_dir: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "Red", "red", "circle", "square"]
    (own / "vocab.txt").write_text("\n".join(words))
    (own / "tokenizer_config.json").write_text('{"do_lower_case": false, "name_or_path": "/secret"}')
    encoders = ("small-cnn", "tokens")
    config = ExtractConfig(
        dataset="shapes",
        encoders=encoders,
        weights={"small-cnn": "random"},
        tokenizer=own,
        options={"count": 40},
        device="cpu",
    )
    extract(config, cache_dir=cache_dir)
    model = AlignedModel.from_run(fit_scenes(cache_dir, "bow"), cache_dir=cache_dir, device="cpu")
    expected = model.encode_text(["a Red circle", "a red circle"])
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(own)
    shutil.rmtree(cache_dir)
    (tmp_path / "model").rename(tmp_path / "moved")
    again = AlignedModel.from_pretrained(tmp_path / "moved", device="cpu")
    np.testing.assert_array_equal(again.encode_text(["a Red circle", "a red circle"]), expected)
    assert not any(b"secret" in data for data in files_of(tmp_path / "moved").values())


def test_the_files_of_a_tokenizer_are_called_as_they_are_looked_for(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "mine.json", "words.txt"):
        (tmp_path / name).write_text(f'"{name}"')
    assert portable_files(tmp_path / "vocab.json") == {
        "vocab.json": b'"vocab.json"',
        "merges.txt": b'"merges.txt"',
    }
    assert portable_files(tmp_path / "mine.json") == {"tokenizer.json": b'"mine.json"'}
    assert portable_files(tmp_path / "words.txt") == {"vocab.txt": b'"words.txt"'}


@pytest.fixture(scope="module")
def of_a_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache of features by weights that are a file, which is then moved; and where it lies now."""
    from torchvision.models import squeezenet1_1

    cache_dir, folder = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), folder / "then.pth")
    weights = {"torchvision:squeezenet1_1": str(folder / "then.pth"), "small-text": "random"}
    config = ExtractConfig(dataset="shapes", encoders=tuple(weights), weights=weights, options={"count": 40},
                           device="cpu")  # fmt: skip
    extract(config, cache_dir=cache_dir)
    return cache_dir, (folder / "then.pth").rename(folder / "now.pth")


def test_weights_that_were_moved_are_missed_by_their_checksum_and_named_anew(
    of_a_file: tuple[Path, Path], tmp_path: Path
) -> None:
    cache_dir, now = of_a_file
    run = fit_scenes(cache_dir, "small-text", **{"data.image_encoder": "torchvision:squeezenet1_1"})
    digest = hashlib.sha256(now.read_bytes()).hexdigest()
    lost = AlignedModel.from_run(run, cache_dir=cache_dir, device="cpu")
    with pytest.raises(EncoderError, match=r"then\.pth': nothing lies there") as caught:
        lost.encode_image(scenes_of(cache_dir, run)[:1])
    assert caught.value.hint is not None
    assert f'weights={{"image": PATH}} with the weights of sha256:{digest}' in caught.value.hint
    found = AlignedModel.from_run(run, cache_dir=cache_dir, device="cpu", weights={"image": str(now)})
    expected = found.encode_image(scenes_of(cache_dir, run)[:2])
    found.save_pretrained(tmp_path / "model")
    again = AlignedModel.from_pretrained(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(again.encode_image(scenes_of(cache_dir, run)[:2]), expected)
    other = tmp_path / "other.pth"
    torch.save({**torch.load(now), "features.0.bias": torch.zeros(64)}, other)
    forged = AlignedModel.from_pretrained(tmp_path / "model", device="cpu", weights={"image": str(other)})
    with pytest.raises(EncoderError, match="another encoder by now: weights is"):
        forged.encode_image(scenes_of(cache_dir, run)[:1])
    with pytest.raises(UsageError, match="weights of sound"):
        AlignedModel.from_pretrained(tmp_path / "model", weights={"sound": str(now)})


def test_what_is_published_names_no_folder_of_this_machine(
    of_a_file: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_dir, now = of_a_file
    run = fit_scenes(cache_dir, "small-text", **{"data.image_encoder": "torchvision:squeezenet1_1"})
    model = AlignedModel.from_run(run, cache_dir=cache_dir, device="cpu", weights={"image": str(now)})

    class Created:
        repo_id = "owner/name"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, **_: Created)
    monkeypatch.setattr(
        HfApi,
        "upload_folder",
        lambda self, *, folder_path, **_: shutil.copytree(folder_path, tmp_path / "hub"),
    )
    monkeypatch.chdir(now.parent)  # where the weights would be found by their name alone
    model.push_to_hub("owner/name")
    assert not any(str(now.parent).encode() in data for data in files_of(tmp_path / "hub").values())
    assert model.image_encoder.weights_path == now

    asked: list[tuple[str, str | None]] = []

    def fetched(name: str, *, revision: str | None, **_: object) -> tuple[Path, str]:
        asked.append((name, revision))
        return tmp_path / "hub", "0" * 40

    monkeypatch.setattr(model_folder, "fetch_snapshot", fetched)
    again = AlignedModel.from_pretrained(
        "owner/name", revision="main", device="cpu", weights={"image": str(now)}
    )
    assert asked == [("owner/name", "main")]
    pixels = [np.full((80, 90, 3), 120, np.uint8)]
    np.testing.assert_array_equal(again.encode_image(pixels), model.encode_image(pixels))


def test_a_model_that_is_nowhere_is_missed_by_name(tmp_path: Path, saved: dict[str, Path]) -> None:
    with pytest.raises(OfflineError, match="owner/absent") as caught:
        AlignedModel.from_pretrained("owner/absent")
    assert caught.value.hint is not None
    assert "hf download owner/absent" in caught.value.hint
    for name in (tmp_path / "absent", str(tmp_path / "absent"), "absent", "./absent", "a/b/c", "absent/"):
        with pytest.raises(SourceError, match="is no folder"):
            AlignedModel.from_pretrained(name)
    with pytest.raises(UsageError, match="which has one state"):
        AlignedModel.from_pretrained(saved["bow"], revision="main")
    with pytest.raises(CorruptError, match=r"config\.json cannot be read"):
        AlignedModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "records.json", "tokenizer.json"])
def test_a_file_that_is_damaged_cut_or_gone_is_named(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0x80
    for data in (bytes(damaged), whole[:-20], b"", None):
        if data is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(data)
        with pytest.raises(CorruptError, match=name.replace(".", r"\.")):
            AlignedModel.from_pretrained(folder, device="cpu")


def put(*path: str, value: object) -> Change:
    def change(document: Any) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = value

    return change


def drop(*path: str) -> Change:
    def change(document: Any) -> None:
        for name in path[:-1]:
            document = document[name]
        del document[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("format", value=2), "has format 2, this align-cache reads up to 1"),
        (put("format", value="1"), "unexpected structure: format"),
        (put("library", value="transformers"), "is not align-cache's"),
        (put("more", value=1), "unexpected structure: more"),
        (drop("text"), "unexpected structure: text"),
        (put("embed_dim", value=2**31 - 1), "does not hold what its config.json says"),
        (put("embed_dim", value=25), "does not hold what its config.json says"),
        (put("embed_dim", value=0), "unexpected structure: embed_dim"),
        (put("image", "dim", value=2**31 - 1), "does not hold what its config.json says"),
        (put("image", "identity", "modality", value="text"), "its encoders are of text and text"),
        (put("image", "identity", "name", value=3), "unexpected structure: image.identity"),
        (put("image", "identity", value=[]), "unexpected structure: image.identity"),
        (put("image", "dtype", value="int32"), "the image encoder gives token ids"),
        (put("text", "dtype", value="float16"), "text features are float16, and adapter.text_type is bow"),
        (put("text", "identity", "tokenizer", value="x"), "unexpected structure: text.identity"),
        (put("text", "request", "tokenizer", value="../x.json"), "unexpected structure: text.request"),
        (put("text", "request", "tokenizer", value="vocab.txt"), "vocab.txt is not among its files"),
        (put("files", "../config.json", value="0" * 64), "unexpected structure: files"),
        (drop("files", "tokenizer.json"), "lists no tokenizer.json"),
        (drop("files", "model.safetensors"), "model.safetensors is not the file that was saved"),
        (put("fit", "adapter", "type", value="mlp"), "does not hold what its config.json says"),
        (put("fit", "adapter", "text_type", value="lstm"), "does not hold what its config.json says"),
        (put("fit", "adapter", "token_dim", value=2**60), "does not hold what its config.json says"),
        (put("fit", "adapter", "token_dim", value=2**70), "does not hold what its config.json says"),
        (put("fit", "adapter", value={"type": "mlp", "mlp_hidden_dims": [2**40], "text_type": "bow"}),
         "does not hold what its config.json says"),
        (put("fit", "adapter", "token_dim", value=-1), "unexpected structure: adapter.token_dim"),
        (put("fit", "adapter", "secret", value=1), "unexpected structure: adapter.secret"),
        (put("fit", value=None), "unexpected structure: fit"),
    ],
)  # fmt: skip
def test_a_forged_config_is_refused_by_name(folder: Path, change: Change, named: str) -> None:
    forge(folder, change)
    with pytest.raises(CacheError, match=named.replace(".", r"\.")):
        AlignedModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "null", '"x"', "{}", '{"library": "align-cache"}', "\x80"]
)
def test_any_json_may_stand_in_a_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptError, match=r"config\.json"):
        AlignedModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", '{"run": []}', '{"evaluation": 3}'])
def test_any_json_may_stand_in_the_records(folder: Path, text: str) -> None:
    (folder / "records.json").write_text(text)
    forge(folder, lambda document: None)
    with pytest.raises(CorruptError, match=r"records\.json"):
        AlignedModel.from_pretrained(folder, device="cpu")


def _with(name: str, value: torch.Tensor | None) -> Change:
    def change(weights: Any) -> None:
        if value is None:
            del weights[name]
        else:
            weights[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_with("image.layers.1.weight", None), "image.layers.1.weight"),
        (_with("more", torch.zeros(1)), "more"),
        (_with("log_temperature", torch.zeros(2)), "log_temperature"),
        (_with("log_temperature", torch.tensor(torch.nan)), "log_temperature holds NaN"),
        (_with("log_temperature", torch.zeros((), dtype=torch.float64)), "log_temperature is torch.float64"),
        (_with("text.tower.table.place", torch.full((8192,), 10**9)), "its ids are not those of"),
        (_with("text.tower.table.place", torch.zeros(3, 3, dtype=torch.int64)), "its ids are not those of"),
        (_with("text.tower.table.place", None), "text.tower.table.place"),
        (_with("text.tower.table.weight", torch.zeros(())), "TypeError"),
    ],
    ids=range(9),
)
def test_forged_weights_are_refused_by_name(folder: Path, change: Change, named: str) -> None:
    weights = load_file(folder / "model.safetensors")
    assert weights["image.layers.1.weight"].shape[0] == 24  # what is changed below is there
    change(weights)
    save_file(weights, folder / "model.safetensors")
    forge(folder, lambda document: None)
    with pytest.raises(CorruptError, match=named.replace(".", r"\.")):
        AlignedModel.from_pretrained(folder, device="cpu")


def test_a_pickle_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "attacked",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Attack()))
    forge(folder, lambda document: None)
    with pytest.raises(CorruptError, match="not a safetensors file"):
        AlignedModel.from_pretrained(folder, device="cpu")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("image", "identity", "name", value="small-vit"), "small-vit is another encoder by now: "),
        (put("image", "identity", "name", value="none"), "there is no encoder 'none'"),
        (put("image", "identity", "weights", value="random:9"), "another encoder by now: weights is"),
        (put("image", "identity", "preprocess", value=[]), "another encoder by now: preprocess"),
        (put("image", "request", "weights", value="/absent.pth"), "nothing lies there"),
        (put("image", "dim", value=3), "does not hold"),
    ],
)  # fmt: skip
def test_a_forged_encoder_is_refused_when_it_is_loaded(folder: Path, change: Change, named: str) -> None:
    forge(folder, change)
    with pytest.raises(AlignCacheError, match=named):
        AlignedModel.from_pretrained(folder, device="cpu").encode_image([np.zeros((9, 9, 3), np.uint8)])


def test_an_encoder_of_another_width_than_the_adapters_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["image.layers.1.weight"] = torch.zeros(24, 3)
    save_file(weights, folder / "model.safetensors")
    forge(folder, put("image", "dim", value=3))
    model = AlignedModel.from_pretrained(folder, device="cpu")
    with pytest.raises(EncoderError, match="small-cnn gives 384 components, and the adapters read 3"):
        model.encode_image([np.zeros((9, 9, 3), np.uint8)])


def test_the_card_tells_data_encoders_numbers_and_limits(home: Path, tmp_path: Path) -> None:
    run = fit_scenes(home, "small-text")
    evaluate(run, EvalConfig(k=2, device="cpu"), cache_dir=home)
    AlignedModel.from_run(run, cache_dir=home, device="cpu").save_pretrained(tmp_path)
    judged = json.loads((tmp_path / "records.json").read_text(encoding="utf-8"))["evaluation"]
    assert "gallery" not in judged, "it shows captions of the dataset"
    assert (run.evaluation() or {})["gallery"]
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "align-cache"
    assert card.data.license is None
    assert card.data.base_model is None
    assert "untrained-encoders" in card.data.tags
    said = [
        *("`shapes`, 32 images with 160 captions", "Untrained encoders: small-cnn, small-text", "`random:3`"),
        *("| · 95% |", "2 epochs, seed 0", "AlignedModel.from_pretrained", "## Limits"),
    ]
    assert [words for words in said if words not in card.text] == []


def test_a_card_tells_no_numbers_of_other_weights(home: Path) -> None:
    run = fit_scenes(home, "small-text")
    record = evaluate(run, EvalConfig(k=2, device="cpu"), cache_dir=home)
    run.append_result({**record, "epoch": 1, "split": "of the first epoch"})

    def card(checkpoint: Any) -> str:
        model = AlignedModel.from_run(run, cache_dir=home, checkpoint=checkpoint, device="cpu")
        return str(model.generate_model_card())

    assert "Not measured" not in card("best")
    assert "of the first epoch" not in card("best")
    append = {**record, "epoch": 7}
    (run.folder / "results.jsonl").unlink()
    run.append_result(append)
    assert "Not measured" in card("best")


def test_encoders_of_the_hub_are_the_base_models_of_a_card(home: Path, saved: dict[str, Path]) -> None:
    model = AlignedModel.from_pretrained(saved["small-text"], device="cpu")
    for encoder, name in (("image_encoder", "dinov2"), ("text_encoder", "hf:owner/text@main:text")):
        known = getattr(model, encoder)
        published = replace(known.request, name=name, weights="pretrained")
        setattr(model, encoder, replace(known, name=name, untrained=False, request=published))
    card = model.generate_model_card()
    assert card.data.base_model == ["facebook/dinov2-base", "owner/text"]
    assert "Untrained" not in str(card)
