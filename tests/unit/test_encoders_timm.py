from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, ImageEncoder
from align_cache.errors import EncoderError, OfflineError, UsageError

timm = pytest.importorskip("timm", reason="timm is an extra")


def build(name: str, weights: str = "random") -> ImageEncoder:
    encoder = load(resolve(EncoderRequest(name, weights)), device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(encoder, ImageEncoder)
    return encoder


def test_preprocessing_is_the_models_own_data_config() -> None:
    spec = resolve(EncoderRequest("timm:resnet18", "random"))
    assert spec.preprocess is not None
    assert (spec.preprocess.resize, spec.preprocess.crop) == (235, 224)  # 224 / 0.95, as timm's own transform
    assert spec.preprocess.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("name", "dim"),
    [("resnet18", 512), ("vit_tiny_patch16_224", 192), ("convnext_atto", 320), ("resnet10t", 512)],
)
def test_features_are_the_models_own_pooling(name: str, dim: int) -> None:
    encoder = build(f"timm:{name}")
    assert encoder.spec.preprocess is not None
    crop = encoder.spec.preprocess.crop
    batch = torch.randint(0, 256, (2, 3, crop, crop), dtype=torch.uint8)
    features = encoder.encode(batch)
    assert features.shape == (2, dim) == (2, encoder.dim)
    assert features.isfinite().all()
    assert torch.equal(features, build(f"timm:{name}").encode(batch))


@pytest.mark.parametrize("name", ["convnext_atto", "deit_tiny_distilled_patch16_224"])
def test_weights_with_their_heads_fill_the_model(name: str, tmp_path: Path) -> None:
    network = timm.create_model(name, pretrained=False).eval()
    save_file(
        {key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "w.safetensors"
    )
    network.reset_classifier(0)
    encoder = build(f"timm:{name}", str(tmp_path / "w.safetensors"))
    crop = encoder.spec.preprocess.crop if encoder.spec.preprocess else 0
    batch = torch.randint(0, 256, (2, 3, crop, crop), dtype=torch.uint8)
    mean, std = (torch.tensor(encoder.spec.identity[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        expected = network((batch / 255 - mean) / std)
    assert torch.allclose(encoder.encode(batch), expected, atol=1e-4)


def test_weights_that_fill_only_part_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("resnet10t", pretrained=False).state_dict()
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"1 missing \(layer1.0.conv1.weight\)"):
        build("timm:resnet10t", str(tmp_path / "w.safetensors"))


def test_what_cannot_be_said_in_one_square_is_refused() -> None:
    with pytest.raises(EncoderError, match="wants 768 x 1024 pixels"):
        resolve(EncoderRequest("timm:vit_base_patch16_sapiens2", "random"))
    with pytest.raises(EncoderError, match="cut by border"):
        resolve(EncoderRequest("timm:deepseek_vit_412m", "random"))
    with pytest.raises(UsageError, match="pooling of its own configuration"):
        resolve(EncoderRequest("timm:resnet18", "random", pooling="mean"))


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(UsageError, match="timm has no model"):
        resolve(EncoderRequest("timm:resnet18.nobody", "random"))


def test_published_weights_offline_are_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OfflineError) as caught:
        resolve(EncoderRequest("timm:resnet18"))
    assert "hf download timm/resnet18" in str(caught.value.hint)
