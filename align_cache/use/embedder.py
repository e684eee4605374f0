"""Pictures, sentences and their features to embeddings, by a pair of adapters and the encoders below them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align_cache.adapters.pair import Adapter, AdapterPair
from align_cache.errors import UsageError
from align_cache.pairing.embedding import BLOCK_ROWS, embed
from align_cache.progress import Progress, no_progress
from align_cache.runtime import DeviceName, resolve_device
from align_cache.sources.prompts import PHOTO_TEMPLATES
from align_cache.use.class_choice import ClassChoice, choose, class_embeddings, prompts_of
from align_cache.use.fresh_features import Picture, image_features, text_features
from align_cache.use.given_features import Features, checked_embeddings, checked_features, checked_ids
from align_cache.use.known_encoder import KnownEncoder

Rows: TypeAlias = NDArray[np.float32]


class Embedder:
    """Embeds into the space of two adapters; the encoders are loaded when they are first needed, and kept.

    Parameters
    ----------
    pair : AdapterPair
        The trained heads.
    image_encoder, text_encoder : KnownEncoder
        What made the features that they were trained on.
    embed_dim : int
        Components of an embedding.
    device : {"auto", "cpu", "cuda", "mps"}
    """

    def __init__(
        self,
        pair: AdapterPair,
        *,
        image_encoder: KnownEncoder,
        text_encoder: KnownEncoder,
        embed_dim: int,
        device: DeviceName = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.pair = pair.eval().to(self.device)
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.embed_dim = embed_dim

    @property
    def temperature(self) -> float:
        """The divisor of the cosines that the adapters were trained with."""
        return float(self.pair.temperature)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user is to be told once: untrained encoders, noise in training, slow precision."""
        return (*self.image_encoder.notes(self.device), *self.text_encoder.notes(self.device))

    @overload
    def encode_image(
        self, images: Iterable[Picture], *, batch_size: int = ..., progress: Progress | None = ...,
        as_torch: Literal[False] = ...,
    ) -> Rows: ...  # fmt: skip

    @overload
    def encode_image(
        self, images: Iterable[Picture], *, batch_size: int = ..., progress: Progress | None = ...,
        as_torch: Literal[True],
    ) -> Tensor: ...  # fmt: skip

    def encode_image(
        self,
        images: Iterable[Picture],
        *,
        batch_size: int = 64,
        progress: Progress | None = None,
        as_torch: bool = False,
    ) -> Rows | Tensor:
        """Embed pictures.

        Parameters
        ----------
        images : iterable of path, bytes of a file, PIL image or uint8 array of shape (height, width, 3)
            Files as extraction reads them; a PIL image is turned upright and made RGB as a file would be.
        batch_size : int
            Pictures computed together.
        progress : callable, optional
            Makes the progress bar.
        as_torch : bool
            A tensor on the model's device instead of a numpy array.

        Returns
        -------
        float32 array or tensor, shape (n, embed_dim), unit-norm rows.

        Raises
        ------
        EncoderError
            If the encoder cannot be had: its features were imported, or its weights are elsewhere.
        SampleError
            For the first picture that cannot be read; names its file or its place.
        """
        features = image_features(
            self._image_model,
            images,
            dtype=self.image_encoder.dtype,
            batch_size=batch_size,
            device=self.device,
            progress=progress or no_progress,
        )
        return _out(self._embedded(self.pair.image, features), as_torch=as_torch)

    @overload
    def encode_text(
        self, texts: Iterable[str], *, batch_size: int = ..., progress: Progress | None = ...,
        as_torch: Literal[False] = ...,
    ) -> Rows: ...  # fmt: skip

    @overload
    def encode_text(
        self, texts: Iterable[str], *, batch_size: int = ..., progress: Progress | None = ...,
        as_torch: Literal[True],
    ) -> Tensor: ...  # fmt: skip

    def encode_text(
        self,
        texts: Iterable[str],
        *,
        batch_size: int = 64,
        progress: Progress | None = None,
        as_torch: bool = False,
    ) -> Rows | Tensor:
        """Embed sentences; what is longer than the encoder reads is cut, as it was for training.

        Parameters
        ----------
        texts : iterable of str
        batch_size, progress, as_torch
            As :meth:`encode_image` takes them.

        Returns
        -------
        float32 array or tensor, shape (n, embed_dim), unit-norm rows.

        Raises
        ------
        EncoderError
            If the encoder cannot be had: its features were imported, or its weights are elsewhere.
        SampleError
            For what is no text.
        """
        features = text_features(
            self._text_model,
            texts,
            dtype=self.text_encoder.dtype,
            batch_size=batch_size,
            progress=progress or no_progress,
        )
        return _out(self._embedded(self.pair.text, features), as_torch=as_torch)

    def embed_image_features(self, features: Features) -> Rows:
        """Embed features of the image encoder, as a cache holds them.

        Parameters
        ----------
        features : float array or tensor, shape (n, image_encoder.dim)
            Unit-norm rows.

        Returns
        -------
        float32 array, shape (n, embed_dim), unit-norm rows.

        Raises
        ------
        ShapeError, NonFiniteError
        """
        rows = checked_features(features, dim=self.image_encoder.dim, name="image features")
        return _array(self._embedded(self.pair.image, torch.split(rows, BLOCK_ROWS)))

    def embed_text_features(self, features: Features) -> Rows:
        """Embed features of the text encoder, as a cache holds them; token ids where a tower reads those.

        Parameters
        ----------
        features : float array or tensor, shape (n, text_encoder.dim)
            Unit-norm rows; or whole numbers, 0 after each row's last token.

        Returns
        -------
        float32 array, shape (n, embed_dim), unit-norm rows.

        Raises
        ------
        ShapeError, NonFiniteError
        """
        dim, tower = self.text_encoder.dim, self.pair.text.tower
        if tower is None:
            rows = checked_features(features, dim=dim, name="text features")
        else:
            vocabulary_size = len(tower.table.place)
            rows = checked_ids(features, dim=dim, vocabulary_size=vocabulary_size, name="token ids")
        return _array(self._embedded(self.pair.text, torch.split(rows, BLOCK_ROWS)))

    @torch.inference_mode()
    def similarity(self, image_embeddings: Features, text_embeddings: Features) -> Rows:
        """Compare every picture with every sentence.

        Parameters
        ----------
        image_embeddings, text_embeddings : float array or tensor, shape (n, embed_dim) and (m, embed_dim)
            Unit-norm rows.

        Returns
        -------
        float32 array, shape (n, m): cosines.

        Raises
        ------
        ShapeError
        """
        images = checked_embeddings(image_embeddings, dim=self.embed_dim, name="image embeddings")
        texts = checked_embeddings(text_embeddings, dim=self.embed_dim, name="text embeddings")
        return _array(images.to(self.device) @ texts.to(self.device).T)

    def zero_shot(
        self,
        images: Iterable[Picture],
        classes: Sequence[str],
        templates: Sequence[str] = PHOTO_TEMPLATES,
        *,
        top: int = 5,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> ClassChoice:
        """Classify pictures by the names of classes; nothing is trained.

        Parameters
        ----------
        images : iterable of path, bytes of a file, PIL image or uint8 array of shape (height, width, 3)
        classes : sequence of str
            Two names or more; an underscore is read as a space.
        templates : sequence of str
            Sentences with one ``{}`` for the class, whose embeddings are averaged.
        top : int
            Classes that are kept of each picture, the nearest first.
        batch_size, progress
            As :meth:`encode_image` takes them.

        Returns
        -------
        ClassChoice

        Raises
        ------
        UsageError
            For fewer than two classes, one that stands twice, what is no template, or a ``top`` below 1.
        EncoderError, SampleError
            As :meth:`encode_image`.
        """
        if top < 1:
            raise UsageError(f"top = {top}, expected at least 1")
        prompts = prompts_of(classes, templates)
        texts = self.encode_text([prompt.text for prompt in prompts], batch_size=batch_size, as_torch=True)
        heads = class_embeddings(prompts, texts)
        embedded = self.encode_image(images, batch_size=batch_size, progress=progress, as_torch=True)
        return choose(embedded, heads, classes, temperature=self.temperature, top=top)

    @cached_property
    def _image_model(self) -> Any:
        return self.image_encoder.load(self.device)

    @cached_property
    def _text_model(self) -> Any:
        return self.text_encoder.load(self.device)

    @torch.inference_mode()
    def _embedded(self, adapter: Adapter, blocks: Iterable[Tensor]) -> Tensor:
        """Embed blocks of features or ids (n, dim): (all of their rows, D), on the device."""
        none_yet = torch.empty(0, self.embed_dim, device=self.device)
        return torch.cat([none_yet, *(embed(adapter, _typed(block.to(self.device))) for block in blocks)])


def _out(rows: Tensor, *, as_torch: bool) -> Rows | Tensor:
    # A tensor made in inference mode is of no use to whoever trains on it.
    return rows.clone() if as_torch else _array(rows)


def _array(rows: Tensor) -> Rows:
    array: Rows = rows.cpu().numpy()
    return array


def _typed(block: Tensor) -> Tensor:
    return block if block.is_floating_point() else block.long()
