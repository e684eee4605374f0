"""What an encoder is, before and after its weights are loaded.

``resolve`` (in :mod:`align_cache.encoders`) turns a request into a spec without loading a model, so
that an extraction that has nothing to do ends at once; ``load`` turns the spec into an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch

    from align_cache.encoders.tokens import TokenIds

Modality: TypeAlias = Literal["image", "text"]
Json: TypeAlias = Any
"""A value that JSON can hold."""


@dataclass(frozen=True, slots=True)
class EncoderRequest:
    """One encoder as the user asked for it."""

    name: str
    """A name of the table, or ``torchvision:<name>``, ``timm:<name>``, ``hf:<id>``."""
    weights: str = "pretrained"
    """``pretrained``, ``random``, ``random:<seed>`` or a path to a file or folder."""
    tokenizer: Path | None = None
    """A folder or file with ``tokenizer.json`` or ``vocab.txt``; text encoders only."""
    pooling: str | None = None
    """None: the encoder's own. ``cls``, ``mean``, ``gap``, ``pooler`` or ``projection`` otherwise."""
    max_length: int = 64
    """Tokens a caption is cut to, the special ones included; text encoders only."""
    resize: Literal["model", "squash"] = "model"
    """``model``: the model's own preprocessing; ``squash``: straight to the crop size, aspect ignored."""
    decode: Literal["model", "fast"] = "model"
    """``model``: Pillow, as the models' authors do; ``fast``: :mod:`align_cache.encoders.fast_images`."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a decoded RGB image becomes the uint8 square that a model is given.

    The shorter side is resized to ``resize`` pixels (antialiased), then the centre ``crop`` x ``crop``
    is cut out; with ``resize=None`` the image is resized to ``crop`` x ``crop``, aspect ignored.
    """

    resize: int | None
    crop: int
    interpolation: Literal["bilinear", "bicubic"]
    backend: str = "pillow"
    """Whose decoding and resizing: ``pillow``, or ``fast_images.BACKEND``."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """One encoder, fully decided, not yet loaded. ``identity`` goes into the cache key."""

    name: str
    modality: Modality
    untrained: bool
    """Whether it has random weights; an encoder without weights has no random ones."""
    identity: Mapping[str, Json]
    """Everything about the encoder that decides the features: weights hash or ``random`` and seed,
    architecture, layer, pooling, preprocessing, normalisation constants, tokenizer hash, max_length."""
    request: EncoderRequest
    preprocess: Preprocess | None = None
    """None for text encoders."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """The local files that ``load`` reads, by role (``weights``, ``config``, ``tokenizer``)."""
    gives: Literal["features", "tokens"] = "features"
    """What its rows are: features, or token ids, which no precision, batch or device decides."""


@runtime_checkable
class ImageEncoder(Protocol):
    """A frozen image model on its device."""

    spec: EncoderSpec
    dim: int

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give features, float32 (n, dim), not normalised, of uint8 pixels (n, 3, crop, crop)."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen text model with its tokenizer."""

    spec: EncoderSpec
    dim: int

    def encode(
        self, texts: Sequence[str], *, batch_size: int, on_batch: Callable[[int], None] | None = None
    ) -> tuple[torch.Tensor, int]:
        """Give features, float32 (n, dim) on the CPU, not normalised, and how many texts were truncated.

        Batches are a function of ``texts`` alone (sorted by length, padded to the longest of the
        batch), so the same texts give the same bits on the same machine. ``on_batch`` is told the
        number of texts done after each batch.
        """
        ...


Encoder: TypeAlias = "ImageEncoder | TextEncoder | TokenIds"
