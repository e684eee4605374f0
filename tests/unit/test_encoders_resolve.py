import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from align_cache.encoders import ENCODERS, load, resolve
from align_cache.encoders.base import EncoderRequest, ImageEncoder
from align_cache.errors import OfflineError, UsageError


def test_resolving_what_lies_on_disk_imports_no_heavy_package(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"any")
    script = f"""
import sys
from align_cache.encoders import resolve
from align_cache.encoders.base import EncoderRequest, ImageEncoder
for name in "resnet18 dinov2 distilbert bert torchvision:vit_b_16 small-cnn small-vit small-text".split():
    resolve(EncoderRequest(name, "random"), captions_digest="d")
resolve(EncoderRequest("torchvision:resnet50", {str(tmp_path / "w.pth")!r}))
print([name for name in ("torch", "torchvision", "transformers", "timm", "datasets") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet19", "resnet18"),
        ("dinov", "dinov2"),
        ("torchvision:mobilnet_v2", "torchvision:mobilenet_v2"),
        ("timm:resnet18d_", "timm:resnet18d"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match="no ") as caught:
        resolve(EncoderRequest(name, "random"))
    assert caught.value.hint == f"did you mean {near}?"


@pytest.mark.parametrize("name", ["", "hf:", "timm:", "torchvision:", "zzz", "small-"])
def test_a_name_like_none_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(UsageError, match="there is no encoder"):
        resolve(EncoderRequest(name, "random"))


@pytest.mark.parametrize("name", ["resnet18", "dinov2", "distilbert", "bert", "hf:owner/name"])
def test_published_weights_offline_are_refused_with_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OfflineError) as caught:
        resolve(EncoderRequest(name), captions_digest="d")
    assert "fetch it where there is a network: " in str(caught.value.hint)


def test_published_resnet18_is_read_from_torch_hubs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import resnet18

    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(resnet18().state_dict(), folder / "resnet18-f37072fd.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    spec = resolve(EncoderRequest("resnet18"))
    assert not spec.untrained
    assert spec.files["weights"] == folder / "resnet18-f37072fd.pth"
    direct = resolve(EncoderRequest("resnet18", str(spec.files["weights"])))
    assert spec.identity == direct.identity
    square = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    encoders = [load(each, device=torch.device("cpu"), dtype=torch.float32) for each in (spec, direct)]
    features = [encoder.encode(square) for encoder in encoders if isinstance(encoder, ImageEncoder)]
    assert torch.equal(*features)


def test_every_identity_is_json() -> None:
    for name in (name for name in ENCODERS if ":" not in name):
        weights = "pretrained" if name == "tokens" else "random"  # it has none
        identity = resolve(EncoderRequest(name, weights), captions_digest="d").identity
        assert json.loads(json.dumps(identity)) == identity
