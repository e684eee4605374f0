"""timm's models without their classifier, ``timm:<name>``, prepared as their own data config says."""

from __future__ import annotations

import math
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_cache.encoders.base import EncoderRequest, EncoderSpec, Preprocess
from align_cache.encoders.spec import image_spec
from align_cache.encoders.weights import digest_files, fill, parse_weights, read_state, require_file, seeded
from align_cache.errors import EncoderError, UsageError
from align_cache.runtime import require_extra

if TYPE_CHECKING:
    import torch

    from align_cache.encoders.base import ImageEncoder

POOLING = "model"


def resolve(request: EncoderRequest, model: str) -> EncoderSpec:
    """Decide a timm encoder. timm is imported: what it knows of its models is in its code."""
    timm = _timm()
    if model not in timm.list_models() and model not in timm.list_pretrained():
        near = get_close_matches(model, [*timm.list_models(), *timm.list_pretrained()], n=1)
        raise UsageError(
            f"timm has no model {model!r}",
            hint=f"did you mean timm:{near[0]}?" if near else "see timm.list_models()",
        )
    if request.pooling not in (None, POOLING):
        raise UsageError(
            f"{request.name} has the pooling of its own configuration", hint="leave --pooling out"
        )
    choice = parse_weights(request.weights)
    published = timm.get_pretrained_cfg(model).to_dict()
    files: dict[str, Path] = {}
    if choice.seed is not None:
        weights = f"random:{choice.seed}"
    else:
        files["weights"] = require_file(choice.path or _fetch(model, published), owner=request.name)
        weights = digest_files([files["weights"]])
    data = timm.data.resolve_data_config(pretrained_cfg=published)
    return image_spec(
        request,
        architecture=f"timm:{model}",
        weights=weights,
        untrained=choice.seed is not None,
        pooling=POOLING,
        preprocess=_preprocess(request.name, data),
        mean=data["mean"],
        std=data["std"],
        files=files,
    )


def load(spec: EncoderSpec, *, device: torch.device, dtype: torch.dtype) -> ImageEncoder:
    """Build the model of a spec from :func:`resolve`."""
    from align_cache.encoders.vision import FrozenImageEncoder

    timm = _timm()
    model = spec.identity["architecture"].partition(":")[2]
    with seeded(parse_weights(spec.request.weights).seed or 0):
        network = timm.create_model(model, pretrained=False, num_classes=0)
    if "weights" in spec.files:
        heads = timm.get_pretrained_cfg(model).classifier or ()
        without = [heads] if isinstance(heads, str) else heads
        fill(network, read_state(spec.files["weights"]), without=without, origin=spec.files["weights"])
    return FrozenImageEncoder(spec, network, device=device, dtype=dtype)


def _timm() -> Any:
    require_extra("timm", extra="timm", needed_for="an encoder timm:NAME")
    import timm
    import timm.data

    return timm


def _fetch(model: str, published: dict[str, Any]) -> Path:
    from align_cache.sources.hub import fetch_snapshot

    repo_id = published.get("hf_hub_id")
    if not repo_id:
        raise EncoderError(
            f"timm has no weights for {model} on the hub", hint="use random, or a file of your own"
        )
    folder, _ = fetch_snapshot(repo_id, repo_type="model", allow_patterns=("model.safetensors",))
    return folder / "model.safetensors"


def _preprocess(name: str, data: dict[str, Any]) -> Preprocess:
    _, height, width = data["input_size"]
    if height != width or data["crop_mode"] not in ("center", "squash"):
        raise EncoderError(
            f"{name} wants {width} x {height} pixels, cut by {data['crop_mode']}: not supported"
        )
    if data["interpolation"] not in ("bilinear", "bicubic"):
        raise EncoderError(f"{name} wants {data['interpolation']} interpolation: not supported")
    resize = None if data["crop_mode"] == "squash" else math.floor(height / data["crop_pct"])
    return Preprocess(resize, height, data["interpolation"])
