"""The demo's small-input encoders, decided: ``small-cnn``, ``small-vit``, ``small-text``; always random."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from align_cache.encoders.base import Encoder, EncoderRequest, EncoderSpec, Preprocess
from align_cache.encoders.spec import image_spec, text_spec
from align_cache.encoders.tokenizer import find_tokenizer, load_tokenizer, tokenizer_identity
from align_cache.encoders.weights import parse_weights
from align_cache.errors import UsageError

if TYPE_CHECKING:
    import torch

IMAGE_SIZE = 64
_HALF = (0.5, 0.5, 0.5)
_VERSION = 1
"""Of the architectures in small_models.py; a change there changes it, and with it the cache key."""


def resolve(request: EncoderRequest, *, captions_digest: str | None) -> EncoderSpec:
    """Decide a small encoder."""
    choice = parse_weights(request.weights)
    if choice.seed is None:
        raise UsageError(
            f"{request.name} is always untrained: there are no weights to load",
            hint=f"use --weights {request.name}=random or random:<seed>",
        )
    if request.pooling is not None:
        raise UsageError(f"{request.name} has a pooling of its own", hint="leave --pooling out")
    architecture, weights = f"{request.name}-{_VERSION}", f"random:{choice.seed}"
    if request.name == "small-text":
        if request.max_length < 3:
            raise UsageError(f"{request.name} reads 3 tokens or more, max_length is {request.max_length}")
        file = None if request.tokenizer is None else find_tokenizer(request.tokenizer)
        return text_spec(
            request,
            architecture=architecture,
            weights=weights,
            untrained=True,
            pooling="mean",
            tokenizer=tokenizer_identity(file, captions_digest, request),
            files={} if file is None else {"tokenizer": file},
        )
    return image_spec(
        request,
        architecture=architecture,
        weights=weights,
        untrained=True,
        pooling="grid" if request.name == "small-cnn" else "mean",
        preprocess=Preprocess(IMAGE_SIZE, IMAGE_SIZE, "bilinear"),
        mean=_HALF,
        std=_HALF,
        files={},
    )


def load(
    spec: EncoderSpec,
    *,
    device: torch.device,
    dtype: torch.dtype,
    captions: Callable[[], Iterable[str]] | None,
) -> Encoder:
    """Build the encoder of a spec from :func:`resolve`."""
    from align_cache.encoders.language import FrozenTextEncoder
    from align_cache.encoders.small_models import SmallCnn, SmallText, SmallVit
    from align_cache.encoders.vision import FrozenImageEncoder
    from align_cache.encoders.weights import seeded

    seed = parse_weights(spec.request.weights).seed or 0
    if spec.modality == "image":
        with seeded(seed):
            model = SmallCnn() if spec.name == "small-cnn" else SmallVit(IMAGE_SIZE)
        return FrozenImageEncoder(spec, model, device=device, dtype=dtype)
    tokenizer = load_tokenizer(spec.files.get("tokenizer"), captions, max_length=spec.request.max_length)
    with seeded(seed):
        text_model = SmallText(tokenizer.size)
    return FrozenTextEncoder(spec, text_model, tokenizer=tokenizer, pad_id=0, device=device, dtype=dtype)
