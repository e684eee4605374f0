"""Specs put together: what every family says of itself in the identity, in one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from align_cache.encoders.base import EncoderRequest, EncoderSpec, Json, Preprocess
from align_cache.encoders.fast_images import BACKEND as FAST_BACKEND


def image_spec(
    request: EncoderRequest,
    *,
    architecture: Json,
    weights: str,
    untrained: bool,
    pooling: str,
    preprocess: Preprocess,
    mean: Sequence[float],
    std: Sequence[float],
    files: Mapping[str, Path],
) -> EncoderSpec:
    """Return the spec of an image encoder; the request's ``squash`` replaces the model's own resizing."""
    if request.resize == "squash":
        preprocess = replace(preprocess, resize=None)
    if request.decode == "fast":
        preprocess = replace(preprocess, backend=FAST_BACKEND)
    identity = {
        "architecture": architecture,
        "weights": weights,
        "pooling": pooling,
        "preprocess": asdict(preprocess),
        "mean": list(mean),
        "std": list(std),
    }
    return EncoderSpec(
        name=request.name,
        modality="image",
        untrained=untrained,
        identity=identity,
        request=request,
        preprocess=preprocess,
        files=files,
    )


def text_spec(
    request: EncoderRequest,
    *,
    architecture: Json,
    weights: str,
    untrained: bool,
    pooling: str,
    tokenizer: Json,
    files: Mapping[str, Path],
) -> EncoderSpec:
    """Return the spec of a text encoder."""
    identity = {
        "architecture": architecture,
        "weights": weights,
        "pooling": pooling,
        "tokenizer": tokenizer,
        "max_length": request.max_length,
    }
    return EncoderSpec(
        name=request.name,
        modality="text",
        untrained=untrained,
        identity=identity,
        request=request,
        files=files,
    )
