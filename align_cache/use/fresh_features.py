"""Features of pictures and sentences that are in no cache, as extraction would have made them.

Pictures are read, turned, resized and batched by the code of extraction, and rows are brought to unit length
and rounded to what the cache stores: adapters then see what they were trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from align_cache.encoders.base import ImageEncoder, TextEncoder
from align_cache.encoders.images import upright_pixels
from align_cache.encoders.tokens import TokenIds
from align_cache.errors import NonFiniteError, SampleError, UsageError
from align_cache.extraction.decoding import Decoder
from align_cache.progress import Progress
from align_cache.runtime import processors
from align_cache.sources.base import ImageData, ImageSample, Source
from align_cache.store.columns import unit_rows
from align_cache.store.shard import FEATURE_DTYPES

Picture: TypeAlias = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""A file, its content, an opened picture, or RGB pixels (height, width, 3)."""

_TEXT_ROWS = 4096
"""Sentences that are sorted by length, and held as features, at a time."""


def image_features(
    encoder: ImageEncoder,
    images: Iterable[Picture],
    *,
    dtype: str,
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> Iterator[Tensor]:
    """Give unit-norm float32 features (up to batch_size, dim) on the CPU, batch after batch.

    Parameters
    ----------
    dtype : str
        What the cache stores; rows are rounded to it.

    Raises
    ------
    SampleError
        For the first picture that cannot be read; names its file or its place.
    NonFiniteError
        For features without a direction.
    """
    _check_batch_size(batch_size)
    source, preprocess = _as_source(images), encoder.spec.preprocess
    assert preprocess is not None  # every image encoder has one
    pinned = device.type == "cuda"
    decoder = Decoder(source, [preprocess], workers=processors(), batch_size=batch_size, pinned=pinned)
    with decoder, progress(len(source.images), encoder.spec.name, "images") as bar:
        for batch in decoder.batches(range(len(source.images))):
            if batch.failed:
                raise batch.failed[0][1]
            raw = encoder.encode(batch.on_device(preprocess, device)).cpu().numpy()
            names = [source.images[row].sample_id for row in batch.rows]
            yield _as_stored(raw, names, encoder.spec.name, dtype)
            bar.advance(len(batch.rows))


def text_features(
    encoder: TextEncoder | TokenIds,
    texts: Iterable[str],
    *,
    dtype: str,
    batch_size: int,
    progress: Progress,
) -> Iterator[Tensor]:
    """Give unit-norm float32 features (n, dim), or int32 token ids, some thousand sentences at a time.

    Raises
    ------
    SampleError
        For what is no text.
    NonFiniteError
        For features without a direction.
    """
    _check_batch_size(batch_size)
    if isinstance(texts, str):
        raise UsageError("texts is one text, expected a list of them", hint="encode_text([text])")
    sentences = list(texts)
    with progress(len(sentences), encoder.spec.name, "texts") as bar:
        for start in range(0, len(sentences), _TEXT_ROWS):
            part = sentences[start : start + _TEXT_ROWS]
            if isinstance(encoder, TokenIds):
                yield torch.from_numpy(encoder.encode(part)[0])
            else:
                raw = encoder.encode(part, batch_size=batch_size)[0].numpy()
                names = [f"text {start + place}" for place in range(len(part))]
                yield _as_stored(raw, names, encoder.spec.name, dtype)
            bar.advance(len(part))


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"batch_size = {batch_size}, expected at least 1")


def _as_source(images: Iterable[Picture]) -> Source:
    if isinstance(images, str | PathLike | bytes | Image.Image) or getattr(images, "ndim", 4) == 3:
        raise UsageError("images is one picture, expected a list of them", hint="encode_image([picture])")
    pictures = list(images)
    names = [_name(picture, place) for place, picture in enumerate(pictures)]
    # A PIL image reads its file when it is first looked at, which two threads must not do at once.
    locks = {id(picture): Lock() for picture in pictures}

    def read(index: int) -> ImageData:
        with locks[id(pictures[index])]:
            return _read(pictures[index], names[index])

    samples = tuple(ImageSample(name, fingerprint="") for name in names)
    return Source(name="pictures", revision="", images=samples, captions=(), read_image=read)


def _name(picture: Picture, place: int) -> str:
    return str(picture) if isinstance(picture, str | PathLike) else f"image {place}"


def _read(picture: object, name: str) -> ImageData:
    if isinstance(picture, Image.Image):
        return upright_pixels(picture, sample_id=name)
    if isinstance(picture, str | PathLike):
        try:
            return Path(picture).read_bytes()
        except (OSError, ValueError) as error:  # a path that holds NUL is a value that is none
            reason = getattr(error, "strerror", None) or error
            raise SampleError(f"{name}: the file cannot be read ({reason})") from None
    if isinstance(picture, bytes | np.ndarray):
        return picture
    kind = type(picture).__name__
    raise SampleError(f"{name} is a {kind}, expected a path, a PIL image or uint8 pixels (height, width, 3)")


def _as_stored(features: NDArray[np.float32], names: Sequence[str], encoder: str, dtype: str) -> Tensor:
    """Bring raw features to unit length, and to the values that the cache would hold."""
    scaled, good = unit_rows(features)
    if not good.all():
        row = int(good.argmin())
        what = "not finite" if features[row].any() else "all zero"
        raise NonFiniteError(f"{encoder} gives features that are {what} for {names[row]}")
    return torch.from_numpy(scaled.astype(FEATURE_DTYPES[dtype]).astype(np.float32))
