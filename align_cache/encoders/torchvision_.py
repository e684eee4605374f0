"""torchvision's classification models without their classifier: ``resnet18`` and ``torchvision:<name>``.

One rule for every family: the last linear or convolutional layer, in the order in which the model registers
its parts, is the classifier; what goes into it is the features: for ResNet-18 the global average pool.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from align_cache.encoders.base import EncoderRequest, EncoderSpec, Preprocess
from align_cache.encoders.spec import image_spec
from align_cache.encoders.weights import (
    digest_files,
    fetch_file,
    fill,
    parse_weights,
    read_state,
    require_file,
    seeded,
)
from align_cache.errors import UsageError

if TYPE_CHECKING:
    import torch

    from align_cache.encoders.base import ImageEncoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
POOLING = "classifier-input"


class _Input(NamedTuple):
    resize: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"]


# What the first ImageNet weights of each model were evaluated with, held against torchvision by a test. It is
# kept here because asking torchvision is an import of seconds: too much for an extraction with nothing to do.
_MODELS: dict[_Input, str] = {
    _Input(256, 224, "bilinear"): """
        alexnet densenet121 densenet161 densenet169 densenet201 googlenet mnasnet0_5 mnasnet1_0 mobilenet_v2
        mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf
        regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf
        regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50
        resnext101_32x8d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1
        vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_l_32
        wide_resnet101_2 wide_resnet50_2""",
    _Input(232, 224, "bilinear"): """
        convnext_base convnext_large mnasnet0_75 mnasnet1_3 resnext101_64x4d shufflenet_v2_x1_5
        shufflenet_v2_x2_0""",
    _Input(230, 224, "bilinear"): "convnext_small",
    _Input(236, 224, "bilinear"): "convnext_tiny",
    _Input(242, 224, "bilinear"): "vit_l_16",
    _Input(342, 299, "bilinear"): "inception_v3",
    _Input(384, 384, "bilinear"): "efficientnet_v2_s",
    _Input(480, 480, "bilinear"): "efficientnet_v2_m",
    _Input(480, 480, "bicubic"): "efficientnet_v2_l",
    _Input(224, 224, "bicubic"): "maxvit_t",
    _Input(256, 224, "bicubic"): "efficientnet_b0",
    _Input(256, 240, "bicubic"): "efficientnet_b1",
    _Input(288, 288, "bicubic"): "efficientnet_b2",
    _Input(320, 300, "bicubic"): "efficientnet_b3",
    _Input(384, 380, "bicubic"): "efficientnet_b4",
    _Input(456, 456, "bicubic"): "efficientnet_b5",
    _Input(528, 528, "bicubic"): "efficientnet_b6",
    _Input(600, 600, "bicubic"): "efficientnet_b7",
    _Input(384, 384, "bicubic"): "regnet_y_128gf",
    _Input(518, 518, "bicubic"): "vit_h_14",
    _Input(238, 224, "bicubic"): "swin_b",
    _Input(246, 224, "bicubic"): "swin_s",
    _Input(232, 224, "bicubic"): "swin_t",
    _Input(272, 256, "bicubic"): "swin_v2_b",
    _Input(260, 256, "bicubic"): "swin_v2_s swin_v2_t",
}
INPUTS: dict[str, _Input] = {name: size for size, names in _MODELS.items() for name in names.split()}

# Known without torchvision, so that `resnet18` resolves at once.
RESNET18_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"


def resolve(request: EncoderRequest, model: str) -> EncoderSpec:
    """Decide a torchvision encoder; torchvision is imported for published weights other than ResNet-18's."""
    if model not in INPUTS:
        near = get_close_matches(model, INPUTS, n=1)
        raise UsageError(
            f"torchvision has no classification model {model!r}",
            hint=f"did you mean torchvision:{near[0]}?" if near else "see docs/encoders.md",
        )
    if request.pooling not in (None, POOLING) and not (model == "resnet18" and request.pooling == "gap"):
        raise UsageError(
            f"{request.name} has one pooling, its classifier's input, not {request.pooling!r}",
            hint="leave --pooling out",
        )
    size, mean, std = INPUTS[model], *_constants(model)
    choice = parse_weights(request.weights)
    files: dict[str, Path] = {}
    if choice.seed is not None:
        weights = f"random:{choice.seed}"
    else:
        files["weights"] = require_file(choice.path or _pretrained_file(model), owner=request.name)
        weights = digest_files([files["weights"]])
        if choice.path is None and model != "resnet18":
            size, mean, std = _default_transforms(model)
    return image_spec(
        request,
        architecture=f"torchvision:{model}",
        weights=weights,
        untrained=choice.seed is not None,
        pooling=POOLING,
        preprocess=Preprocess(*size),
        mean=mean,
        std=std,
        files=files,
    )


def load(spec: EncoderSpec, *, device: torch.device, dtype: torch.dtype) -> ImageEncoder:
    """Build the model of a spec from :func:`resolve`, its classifier taken out."""
    from align_cache.encoders.vision import FrozenImageEncoder

    model = spec.identity["architecture"].partition(":")[2]
    choice = parse_weights(spec.request.weights)
    if choice.seed is not None:
        with seeded(choice.seed):
            network = _build(model)
        _remove_classifier(network)
    elif choice.path is not None:
        network = _build(model)
        fill(network, read_state(choice.path), without=[_remove_classifier(network)], origin=choice.path)
    else:
        # torchvision unpickles whatever its file holds: only a file of nothing but tensors is left to it.
        read_state(spec.files["weights"])
        network = _build_pretrained(model)
        _remove_classifier(network)
    return FrozenImageEncoder(spec, _fold_batch_norms(network), device=device, dtype=dtype)


def _build(model: str) -> torch.nn.Module:
    from torchvision.models import get_model

    arguments: dict[str, Any] = {}
    if model in ("googlenet", "inception_v3"):
        # Their public weights expect ImageNet-normalised input to be brought to -1 to 1 inside. Their own
        # initialisation takes a minute and differs from every other model's.
        arguments = {"transform_input": True, "init_weights": False}
    elif model == "vit_h_14":
        arguments = {"image_size": INPUTS[model].crop}
    network: torch.nn.Module = get_model(model, weights=None, **arguments)
    return network


def _build_pretrained(model: str) -> torch.nn.Module:
    """Let torchvision read its own cached file: it knows the names that old files use."""
    from torchvision.models import get_model

    network: torch.nn.Module = get_model(model, weights="DEFAULT", progress=False)
    return network


def _remove_classifier(network: torch.nn.Module) -> str:
    """Replace the last layer by the identity and return its path in the model."""
    from torch import nn

    path: str = [name for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)][
        -1
    ]
    network.set_submodule(path, nn.Identity())
    return path


def _fold_batch_norms(network: torch.nn.Module) -> torch.nn.Module:
    """Work each batch normalisation into the convolution before it: the same function in fewer passes."""
    from torch import nn
    from torch.fx.experimental.optimization import fuse

    network.eval()
    if not any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        return network
    folded: nn.Module = fuse(network)
    return folded


def resnet18_fetch_command() -> str | None:
    """Return the command that fetches ResNet-18's weights; None where torch.hub's folder has them."""
    there = (_hub_folder() / RESNET18_URL.rpartition("/")[2]).is_file()
    return None if there else _fetch_command("resnet18")


def _pretrained_file(model: str) -> Path:
    url = RESNET18_URL if model == "resnet18" else _default_weights(model).url
    return fetch_file(url, folder=_hub_folder(), command=_fetch_command(model))


def _fetch_command(model: str) -> str:
    return f"python -c \"import torchvision; torchvision.models.{model}(weights='DEFAULT')\""


def _default_weights(model: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(model).DEFAULT


def _default_transforms(model: str) -> tuple[_Input, Sequence[float], Sequence[float]]:
    transforms = _default_weights(model).transforms()
    size = _Input(transforms.resize_size[0], transforms.crop_size[0], transforms.interpolation.value)
    return size, transforms.mean, transforms.std


def _constants(model: str) -> tuple[Sequence[float], Sequence[float]]:
    return (_HALF, _HALF) if model == "efficientnet_v2_l" else (IMAGENET_MEAN, IMAGENET_STD)


def _hub_folder() -> Path:
    """Return the folder of torch.hub's downloads, found as torch.hub finds it, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"
