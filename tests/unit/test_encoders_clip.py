"""CLIP's towers from a folder in the hub's format, against transformers' own CLIPModel."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, ImageEncoder, TextEncoder
from align_cache.encoders.clip_tokenizer import END, START
from align_cache.encoders.named import NAMED
from align_cache.encoders.tokenizer import load_tokenizer
from align_cache.errors import EncoderError, UsageError
from tests.unit.clip_folder import TEXTS, byte_pairs, clip_folder

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
SPECIAL = json.dumps({"a": 0, "b": 1, START: 2, END: 3})
Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small random CLIP as transformers saves it, with the files of its tokenizer and image processor."""
    return clip_folder(tmp_path / "clip")


def image_encoder(folder: Path, name: str = "hf:some/clip:image", **request: Any) -> ImageEncoder:
    encoder = load(resolve(EncoderRequest(name, str(folder), **request)), device=CPU, dtype=torch.float32)
    assert isinstance(encoder, ImageEncoder)
    return encoder


def text_encoder(folder: Path, name: str = "hf:some/clip:text", **request: Any) -> TextEncoder:
    request.setdefault("max_length", 12)
    encoder = load(resolve(EncoderRequest(name, str(folder), **request)), device=CPU, dtype=torch.float32)
    assert isinstance(encoder, TextEncoder)
    return encoder


def pixels(rows: int = 3) -> torch.Tensor:
    return torch.randint(
        0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def their_image_features(folder: Path, batch: torch.Tensor) -> torch.Tensor:
    model = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(settings[key])[:, None, None] for key in ("image_mean", "image_std"))
    with torch.inference_mode():
        features: torch.Tensor = model.get_image_features(
            pixel_values=(batch / 255 - mean) / std
        ).pooler_output
    return features


def their_text_features(folder: Path, texts: list[str], *, max_length: int = 12) -> torch.Tensor:
    """One text at a time, so that nothing is padded."""
    model = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        rows = [
            model.get_text_features(
                **tokenizer(text, return_tensors="pt", truncation=True, max_length=max_length)
            ).pooler_output
            for text in texts
        ]
    return torch.cat(rows)


def rewrite(folder: Path, *, part: str | None = None, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (config if part is None else config[part]).update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def test_image_features_are_clips_own_projected_ones(folder: Path) -> None:
    encoder = image_encoder(folder)
    assert encoder.dim == 10
    assert torch.allclose(encoder.encode(pixels()), their_image_features(folder, pixels()), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_text_features_are_clips_own_projected_ones_whatever_shares_the_batch(
    folder: Path, batch_size: int
) -> None:
    features, cut = text_encoder(folder).encode(TEXTS, batch_size=batch_size)
    assert cut == 1
    assert torch.allclose(features, their_text_features(folder, TEXTS), atol=1e-6)


def test_the_end_of_text_of_the_first_published_configs_is_their_highest_id(folder: Path) -> None:
    modern = text_encoder(folder).encode(TEXTS, batch_size=2)[0]
    rewrite(folder, part="text_config", eos_token_id=2, bos_token_id=0)
    assert torch.equal(text_encoder(folder).encode(TEXTS, batch_size=2)[0], modern)


def test_quick_gelu_and_gelu_are_told_apart(folder: Path) -> None:
    quick = image_encoder(folder).encode(pixels())
    rewrite(folder, part="vision_config", hidden_act="gelu")
    assert torch.allclose(
        image_encoder(folder).encode(pixels()), their_image_features(folder, pixels()), atol=1e-6
    )
    assert not torch.allclose(image_encoder(folder).encode(pixels()), quick, atol=1e-4)


def test_values_that_old_configs_give_a_second_time_win_as_in_transformers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    rewrite(folder, vision_config_dict=config["vision_config"], text_config_dict=None)
    rewrite(folder, part="vision_config", hidden_act="gelu")
    assert torch.allclose(
        image_encoder(folder).encode(pixels()), their_image_features(folder, pixels()), atol=1e-6
    )
    rewrite(folder, part="vision_config", hidden_act="quick_gelu")
    before = resolve(EncoderRequest("hf:a/b:image", str(folder))).identity
    rewrite(folder, part="vision_config_dict", hidden_act="gelu")
    assert resolve(EncoderRequest("hf:a/b:image", str(folder))).identity != before


@pytest.mark.parametrize("tower", ["Vision", "Text"])
def test_a_tower_saved_alone_gives_the_features_of_the_whole(
    folder: Path, tmp_path: Path, tower: str
) -> None:
    alone = clip_folder(tmp_path / "alone")
    getattr(transformers, f"CLIP{tower}ModelWithProjection").from_pretrained(
        folder, config=tower_config(folder, tower)
    ).save_pretrained(alone)
    if tower == "Vision":
        whole, part = (
            image_encoder(each, name) for each, name in ((folder, "hf:a/b:image"), (alone, "hf:a/b"))
        )
        assert torch.equal(part.encode(pixels()), whole.encode(pixels()))
    else:
        whole, part = (
            text_encoder(each, name) for each, name in ((folder, "hf:a/b:text"), (alone, "hf:a/b"))
        )
        assert torch.equal(part.encode(TEXTS, batch_size=3)[0], whole.encode(TEXTS, batch_size=3)[0])


def tower_config(folder: Path, tower: str) -> Any:
    config = transformers.CLIPConfig.from_pretrained(folder)
    part = config.vision_config if tower == "Vision" else config.text_config
    part.projection_dim = config.projection_dim
    return part


def test_the_pooled_output_before_the_projection_can_be_asked_for(folder: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = image_encoder(folder, pooling="pooler")
    assert encoder.dim == 24
    with torch.inference_mode():
        projected = model.visual_projection(encoder.encode(pixels()))
    assert torch.allclose(projected, their_image_features(folder, pixels()), atol=1e-5)


def test_a_missing_projection_is_refused_by_name(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"1 missing \(visual_projection.weight\)"):
        image_encoder(folder)
    assert image_encoder(folder, pooling="pooler").dim == 24
    assert text_encoder(folder).dim == 10


def test_counted_positions_in_the_first_published_files_are_no_tensors_left_over(folder: Path) -> None:
    expected = text_encoder(folder).encode(TEXTS, batch_size=3)[0]
    state = load_file(folder / "model.safetensors")
    for tower, positions in (("text_model", 12), ("vision_model", 17)):
        state[f"{tower}.embeddings.position_ids"] = torch.arange(positions)[None]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(text_encoder(folder).encode(TEXTS, batch_size=3)[0], expected)
    assert image_encoder(folder).dim == 10


@pytest.mark.parametrize("pooling", ["projection", "pooler"])
@pytest.mark.parametrize(("layers", "what"), [(3, "16 missing"), (1, "16 unexpected")])
def test_a_layer_too_few_or_too_many_in_the_tower_is_refused(
    folder: Path, pooling: str, layers: int, what: str
) -> None:
    rewrite(folder, part="vision_config", num_hidden_layers=layers)
    with pytest.raises(EncoderError, match=what):
        image_encoder(folder, pooling=pooling)
    assert text_encoder(folder).dim == 10


def test_a_projection_of_another_width_is_refused(folder: Path) -> None:
    rewrite(folder, projection_dim=12)
    with pytest.raises(EncoderError, match="cannot be loaded"):
        image_encoder(folder)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("hf:a/b", "is a clip model with two towers"),
        ("hf:a/b:sound", "is a clip model with two towers"),
        ("bert", "is not bert: model_type is clip_text_model, not bert"),
        ("clip-vit-b32", "is not clip-vit-b32: hidden_size is 24, not 768"),
        ("clip-text-b32", "is not clip-text-b32: hidden_size is 16, not 512"),
    ],
)
def test_what_names_no_tower_of_the_folder_is_refused(folder: Path, name: str, what: str) -> None:
    with pytest.raises((UsageError, EncoderError), match=what):
        resolve(EncoderRequest(name, str(folder)))


def test_a_tower_is_not_asked_of_a_model_without_it(tmp_path: Path) -> None:
    alone = clip_folder(tmp_path / "alone")
    transformers.CLIPVisionModelWithProjection(tower_config(alone, "Vision")).save_pretrained(alone)
    with pytest.raises(UsageError, match="a clip_vision_model model has no such"):
        resolve(EncoderRequest("hf:a/b:text", str(alone)))


@pytest.mark.parametrize(
    ("name", "pooling", "what"),
    [
        ("hf:a/b:text", "cls", "its first token is the same for every text"),
        ("hf:a/b:text", "max", "is none of cls, mean, pooler, projection"),
        ("distilbert", "projection", "a distilbert model has no projection"),
    ],
)
def test_a_pooling_that_cannot_be_meant_is_refused(folder: Path, name: str, pooling: str, what: str) -> None:
    weights = "random" if name == "distilbert" else str(folder)
    with pytest.raises(UsageError, match=what):
        resolve(EncoderRequest(name, weights, pooling=pooling, max_length=12), captions_digest="d")


def test_a_text_is_cut_to_what_the_tower_can_read(folder: Path) -> None:
    with pytest.raises(UsageError, match="reads 3 to 12 tokens, max_length is 13"):
        text_encoder(folder, max_length=13)
    with pytest.raises(UsageError, match="reads 3 to 77 tokens"):
        resolve(EncoderRequest("clip-text-b32", "random", max_length=78), captions_digest="d")


def test_a_tokenizer_whose_texts_end_otherwise_is_refused(folder: Path, tmp_path: Path) -> None:
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog"]))
    with pytest.raises(EncoderError, match=r"reads a text's feature at token .*texts end with 3"):
        text_encoder(folder, tokenizer=words)


def test_the_folders_own_way_to_prepare_images_is_taken(folder: Path) -> None:
    spec = resolve(EncoderRequest("hf:a/b:image", str(folder)))
    assert spec.preprocess is not None
    assert (spec.preprocess.resize, spec.preprocess.crop, spec.preprocess.interpolation) == (
        40,
        32,
        "bicubic",
    )


def test_images_of_another_size_than_the_tower_reads_are_refused(folder: Path) -> None:
    rewrite(folder, part="vision_config", image_size=48)
    with pytest.raises(EncoderError, match=r"reads images of 48 pixels, and by .* they have 32"):
        resolve(EncoderRequest("hf:a/b:image", str(folder)))


def test_a_named_models_folder_says_how_its_images_are_prepared(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(NAMED["dinov2"].config))
    (tmp_path / "model.safetensors").touch()
    built_in = resolve(EncoderRequest("dinov2", str(tmp_path))).preprocess
    settings = NAMED["dinov2"].preprocessor
    assert settings is not None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert resolve(EncoderRequest("dinov2", str(tmp_path))).preprocess == built_in
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "crop_size": 196}))
    other = resolve(EncoderRequest("dinov2", str(tmp_path))).preprocess
    assert other is not None
    assert (other.resize, other.crop) == (256, 196)


def test_images_are_prepared_as_by_clips_own_processor() -> None:
    spec = resolve(EncoderRequest("clip-vit-b32", "random"))
    theirs = transformers.CLIPImageProcessor()
    assert spec.preprocess is not None
    assert spec.preprocess.resize == theirs.size["shortest_edge"]
    assert (spec.preprocess.crop, spec.preprocess.crop) == (
        theirs.crop_size["height"],
        theirs.crop_size["width"],
    )
    assert spec.preprocess.interpolation == "bicubic"
    assert theirs.resample == 3
    assert spec.identity["mean"] == list(theirs.image_mean)
    assert spec.identity["std"] == list(theirs.image_std)


def test_built_in_towers_are_transformers_defaults() -> None:
    for name, theirs in (
        ("clip-vit-b32", transformers.CLIPVisionConfig()),
        ("clip-text-b32", transformers.CLIPTextConfig()),
    ):
        assert {key: getattr(theirs, key) for key in NAMED[name].config} == NAMED[name].config


def test_a_config_that_is_silent_has_transformers_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "model.safetensors").touch()
    byte_pairs(tmp_path)
    spec = resolve(EncoderRequest("clip-text-b32", str(tmp_path), max_length=77))
    assert spec.modality == "text"
    with pytest.raises(UsageError, match="reads 3 to 77 tokens"):
        resolve(EncoderRequest("clip-text-b32", str(tmp_path), max_length=78))
    assert resolve(EncoderRequest("clip-vit-b32", str(tmp_path))).modality == "image"


def test_an_untrained_text_tower_tells_captions_apart_with_counted_words() -> None:
    texts = ["a dog", "two dogs run", "a"]
    spec = resolve(EncoderRequest("clip-text-b32", "random:3"), captions_digest="d")
    assert spec.untrained
    encoder = load(spec, device=CPU, dtype=torch.float32, captions=lambda: texts)
    assert isinstance(encoder, TextEncoder)
    features, _ = encoder.encode(texts, batch_size=2)
    assert features.shape == (3, 512)
    assert torch.cdist(features, features).fill_diagonal_(9).min() > 1e-3


def test_an_untrained_image_tower_is_vit_b32_and_uses_fused_attention() -> None:
    spec = resolve(EncoderRequest("clip-vit-b32", "random:3"))
    assert spec.untrained
    encoder = load(spec, device=CPU, dtype=torch.bfloat16)
    assert isinstance(encoder, ImageEncoder)
    assert encoder.encode(torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)).shape == (2, 512)
    network = encoder._model.network  # type: ignore[attr-defined]  # there is no public way to ask
    assert network.config._attn_implementation == "sdpa"
    assert sum(parameter.numel() for parameter in network.parameters()) == 87_849_216


def test_both_files_of_the_byte_pairs_are_part_of_the_identity(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    byte_pairs(folder)

    def identity() -> Any:
        return resolve(EncoderRequest("hf:a/b:text", str(folder), max_length=12)).identity["tokenizer"]

    before = identity()
    assert identity() == before
    merges = folder / "merges.txt"
    merges.write_text(merges.read_text().rpartition("\n")[0].rpartition("\n")[0] + "\n")
    assert identity() != before
    merges.unlink()
    with pytest.raises(EncoderError, match=r"has no merges\.txt beside it"):
        identity()


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json"])
def test_token_ids_are_those_of_clips_own_tokenizer(tmp_path: Path, file: str) -> None:
    byte_pairs(tmp_path)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    if file == "tokenizer.json":
        theirs.save_pretrained(tmp_path)
    texts = [
        *TEXTS,
        "It's 1984,  we'll\tsee…",
        "Él comió   ñandú 東京 🐕",
        "a" * 50,
        f"{START} a {END}",
        "don't—dog's",
    ]
    ids, cut = load_tokenizer(tmp_path / file, None, max_length=30).encode(texts)
    assert ids == theirs(texts, truncation=True, max_length=30)["input_ids"]
    assert cut == sum(len(theirs(text)["input_ids"]) > 30 for text in texts) > 0


@pytest.mark.parametrize(
    ("vocabulary", "merges", "what"),
    [
        ('{"<s>": 0, "a": 1}', "#version: 0.2\n", r"is not CLIP's vocabulary: it lacks <\|startoftext\|>"),
        ("{", "#version: 0.2\n", "is no JSON"),
        ('["a"]', "#version: 0.2\n", "is no vocabulary"),
        (SPECIAL, "#version: 0.2\na b\n", r"do not belong together: no token for a \+ b"),
        (SPECIAL, "#version: 0.2\na b c\n", "line 2: found 'a b c', wanted two tokens"),
    ],
)
def test_byte_pairs_that_are_not_clips_are_refused(
    tmp_path: Path, vocabulary: str, merges: str, what: str
) -> None:
    (tmp_path / "vocab.json").write_text(vocabulary)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(EncoderError, match=what):
        load_tokenizer(tmp_path / "vocab.json", None, max_length=8)


def test_start_and_end_of_text_are_not_the_users_words(folder: Path) -> None:
    features, _ = text_encoder(folder).encode(["a dog", f"{START}a dog{END}"], batch_size=1)
    assert torch.allclose(features, their_text_features(folder, ["a dog", f"{START}a dog{END}"]), atol=1e-6)
