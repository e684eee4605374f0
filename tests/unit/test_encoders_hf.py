import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, ImageEncoder, TextEncoder
from align_cache.encoders.named import NAMED
from align_cache.errors import EncoderError, UsageError

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "dog",
    "runs",
    "two",
    "dogs",
    "##s",
    "red",
    "ball",
]
TEXTS = ["a dog runs", "two dogs", "", "a red ball runs a red ball runs", "a"]
SMALL_BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
              "vocab_size": len(WORDS)}  # fmt: skip
SMALL_VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
PREPROCESSOR = {
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save a small random model as transformers does, with a tokenizer or how images are prepared."""

    def make(kind: str, model_class: str = "AutoModel", **settings: Any) -> Path:
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, **settings)
        if model_class == "AutoModel":
            model = transformers.AutoModel.from_config(config)
        else:
            model = getattr(transformers, model_class)(config)
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
        return folder

    return make


def text_encoder(folder: Path, name: str = "hf:some/text", **request: Any) -> TextEncoder:
    encoder = load(resolve(EncoderRequest(name, str(folder), **request)), device=CPU, dtype=torch.float32)
    assert isinstance(encoder, TextEncoder)
    return encoder


def image_encoder(folder: Path, **request: Any) -> ImageEncoder:
    spec = resolve(EncoderRequest("hf:some/image", str(folder), **request))
    encoder = load(spec, device=CPU, dtype=torch.float32)
    assert isinstance(encoder, ImageEncoder)
    return encoder


def hidden_states(folder: Path, text: str) -> torch.Tensor:
    """Run transformers itself on one text, unpadded."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = transformers.BertTokenizerFast.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        hidden: torch.Tensor = model(input_ids=ids).last_hidden_state[0]
    return hidden


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bert", SMALL_BERT),
        ("distilbert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 13}),
    ],
)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_text_features_are_transformers_own(
    save: Save, kind: str, settings: dict[str, Any], pooling: str
) -> None:
    folder = save(kind, **settings)
    features, cut = text_encoder(folder, pooling=pooling).encode(TEXTS, batch_size=2)
    assert cut == 0
    for row, text in zip(features, TEXTS, strict=True):
        hidden = hidden_states(folder, text)
        expected = hidden[0] if pooling == "cls" else hidden.mean(0)
        assert torch.allclose(row, expected, atol=1e-5), text


def test_cls_is_berts_own_pooling(save: Save) -> None:
    folder = save("bert", **SMALL_BERT)
    own, asked = (
        resolve(EncoderRequest("hf:some/text", str(folder), pooling=name)) for name in (None, "cls")
    )
    assert own.identity == asked.identity
    mean = resolve(EncoderRequest("hf:some/text", str(folder), pooling="mean"))
    assert mean.identity != own.identity


def test_image_features_are_transformers_own(save: Save) -> None:
    folder = save("dinov2", patch_size=8, **SMALL_VISION)
    batch = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        hidden = model(pixel_values=(batch / 255 - 0.5) / 0.5).last_hidden_state
    assert torch.allclose(image_encoder(folder).encode(batch), hidden[:, 0], atol=1e-5)
    assert torch.allclose(image_encoder(folder, pooling="mean").encode(batch), hidden.mean(1), atol=1e-5)


def test_a_convolutional_model_gives_its_pooled_output(save: Save) -> None:
    folder = save("resnet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    batch = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert image_encoder(folder).encode(batch).shape == (2, 16)
    with pytest.raises(EncoderError, match="has no tokens"):
        image_encoder(folder, pooling="mean")


def test_a_task_head_is_left_aside_and_a_missing_pooler_is_not_missed_by_cls(save: Save) -> None:
    folder = save("bert", "BertForMaskedLM", **SMALL_BERT)
    assert text_encoder(folder).encode(TEXTS, batch_size=8)[0].isfinite().all()
    with pytest.raises(EncoderError, match=r"2 missing \(pooler.dense.bias, pooler.dense.weight\)"):
        text_encoder(folder, pooling="pooler")


def test_old_names_of_layer_norms_are_read(save: Save) -> None:
    folder = save("bert", "BertForMaskedLM", **SMALL_BERT)
    expected = text_encoder(folder).encode(TEXTS, batch_size=8)[0]
    state = load_file(folder / "model.safetensors")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in state.items()
    }
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(text_encoder(folder).encode(TEXTS, batch_size=8)[0], expected)


def test_a_layer_too_few_or_too_many_is_refused_with_its_keys(save: Save) -> None:
    folder = save("bert", **SMALL_BERT)
    config = json.loads((folder / "config.json").read_text())
    for layers, what in ((3, r"16 missing \(encoder.layer.2"), (1, r"16 unexpected \(encoder.layer.1")):
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
        with pytest.raises(EncoderError, match=what):
            text_encoder(folder)


def test_tensors_of_another_shape_are_refused(save: Save) -> None:
    folder = save("bert", **SMALL_BERT)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(EncoderError, match=str(folder)):
        text_encoder(folder)


def test_a_damaged_weights_file_is_refused(save: Save) -> None:
    folder = save("bert", **SMALL_BERT)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        text_encoder(folder)


def test_a_tokenizer_larger_than_the_embedding_is_refused(save: Save) -> None:
    folder = save("bert", **SMALL_BERT)
    (folder / "vocab.txt").write_text("\n".join([*WORDS, "more"]))
    with pytest.raises(EncoderError, match="the tokenizer has 14 tokens, the model 13"):
        text_encoder(folder)


def test_weights_in_parts_are_read_and_all_of_them_named(save: Save, tmp_path: Path) -> None:
    folder = save("bert", **SMALL_BERT)
    whole = text_encoder(folder).encode(TEXTS, batch_size=8)[0]
    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="6KB")
    assert (folder / "model.safetensors.index.json").is_file()
    assert torch.equal(text_encoder(folder).encode(TEXTS, batch_size=8)[0], whole)
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(EncoderError, match="not all parts of the weights"):
        text_encoder(folder)


def test_a_folder_without_safetensors_is_refused(save: Save) -> None:
    folder = save("bert", **SMALL_BERT)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"holds no model\.safetensors"):
        text_encoder(folder)


def test_a_folder_of_another_model_is_not_the_named_one(save: Save) -> None:
    folder = save("bert", **SMALL_BERT)
    with pytest.raises(EncoderError, match="is not distilbert: model_type is bert, not distilbert"):
        text_encoder(folder, "distilbert")
    with pytest.raises(EncoderError, match="is not bert: hidden_size is 16, not 768"):
        text_encoder(folder, "bert")


def test_a_folder_without_a_config_or_preprocessing_is_refused(save: Save, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"holds no config\.json"):
        resolve(EncoderRequest("hf:some/text", str(tmp_path)))
    folder = save("dinov2", patch_size=8, **SMALL_VISION)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(EncoderError, match=r"holds no preprocessor_config\.json"):
        image_encoder(folder)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "siglip", "text_config": {}, "vision_config": {}}, "several towers"),
        ({"model_type": "t5", "vocab_size": 9, "is_encoder_decoder": True}, "several towers"),
        ({"model_type": "wav2vec2"}, "how the output of a wav2vec2 model becomes one vector"),
        ({"model_type": "gpt2", "vocab_size": 9}, "how the output of a gpt2 model becomes one vector"),
    ],
)
def test_models_that_are_no_single_encoder_are_refused(
    tmp_path: Path, config: dict[str, Any], what: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    pooling = "mean" if "towers" in what else None
    with pytest.raises(UsageError, match=what):
        resolve(EncoderRequest("hf:a/b", str(tmp_path), pooling=pooling))


@pytest.mark.parametrize("length", [0, 2, 513])
def test_a_length_that_the_model_cannot_read_is_refused(length: int) -> None:
    with pytest.raises(UsageError, match="reads 3 to 512 tokens"):
        resolve(EncoderRequest("distilbert", "random", max_length=length), captions_digest="d")


def test_the_identity_is_the_content_of_the_folder(save: Save, tmp_path: Path) -> None:
    folder = save("bert", **SMALL_BERT)
    before = resolve(EncoderRequest("hf:a/b", str(folder)))
    moved = folder.rename(tmp_path / "elsewhere")
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"transformers_version": "9.9"}))
    assert resolve(EncoderRequest("hf:a/b", str(moved))).identity == before.identity
    (moved / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
    assert resolve(EncoderRequest("hf:a/b", str(moved))).identity != before.identity


def test_built_in_architectures_are_those_of_the_published_ids() -> None:
    defaults = {"distilbert": transformers.DistilBertConfig(), "bert": transformers.BertConfig()}
    for name, default in defaults.items():
        assert {key: getattr(default, key) for key in NAMED[name].config} == NAMED[name].config
    assert {name: named.repo_id.partition("/")[2] for name, named in NAMED.items()} == {
        "distilbert": "distilbert-base-uncased", "bert": "bert-base-uncased", "dinov2": "dinov2-base",
        "clip-vit-b32": "clip-vit-base-patch32@refs/pr/15",
        "clip-text-b32": "clip-vit-base-patch32@refs/pr/15",
    }  # fmt: skip


def test_untrained_distilbert_has_its_true_width_and_as_many_embeddings_as_tokens() -> None:
    spec = resolve(EncoderRequest("distilbert", "random:1"), captions_digest="d")
    assert spec.untrained
    texts = ["a dog", "two dogs run"]
    torch.manual_seed(3)
    encoders = [load(spec, device=CPU, dtype=torch.float32, captions=lambda: texts) for _ in range(2)]
    first, second = (
        encoder.encode(texts, batch_size=2)[0] for encoder in encoders if isinstance(encoder, TextEncoder)
    )
    assert first.shape == (2, 768)
    assert torch.equal(first, second)


def test_untrained_dinov2_is_the_base_model_and_uses_fused_attention() -> None:
    encoder = load(resolve(EncoderRequest("dinov2", "random")), device=CPU, dtype=torch.bfloat16)
    assert isinstance(encoder, ImageEncoder)
    features = encoder.encode(torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8))
    assert features.shape == (2, 768)
    network = encoder._model.network  # type: ignore[attr-defined]  # there is no public way to ask
    assert network.config._attn_implementation == "sdpa"
    assert sum(parameter.numel() for parameter in network.parameters()) == 86_580_480
