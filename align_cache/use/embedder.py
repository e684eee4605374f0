"""Pictures and sentences to embeddings: the encoders below a pair of adapters, and classes by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, overload

from torch import Tensor

from align_cache.errors import UsageError
from align_cache.progress import Progress, no_progress
from align_cache.sources.prompts import PHOTO_TEMPLATES, class_prompts
from align_cache.use.class_choice import ClassChoice, choose, class_embeddings, class_names
from align_cache.use.feature_embedder import FeatureEmbedder, Rows, as_array
from align_cache.use.fresh_features import Picture, image_features, text_features


class Embedder(FeatureEmbedder):
    """Encodes and embeds; the encoders are loaded when they are first needed, and kept.

    Parameters are those of :class:`FeatureEmbedder`.
    """

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
            For fewer than two classes, two that read alike, what is no template, or a ``top`` below 1.
        EncoderError, SampleError
            As :meth:`encode_image`.
        """
        if top < 1:
            raise UsageError(f"top = {top}, expected at least 1")
        names = class_names(classes)
        prompts = class_prompts(names, templates)
        texts = self.encode_text([prompt.text for prompt in prompts], batch_size=batch_size, as_torch=True)
        heads = class_embeddings(prompts, texts)
        embedded = self.encode_image(images, batch_size=batch_size, progress=progress, as_torch=True)
        return choose(embedded, heads, names, temperature=self.temperature, top=top)

    @cached_property
    def _image_model(self) -> Any:
        return self.image_encoder.load(self.device)

    @cached_property
    def _text_model(self) -> Any:
        return self.text_encoder.load(self.device)


def _out(rows: Tensor, *, as_torch: bool) -> Rows | Tensor:
    # A tensor made in inference mode is of no use to whoever trains on it.
    return rows.clone() if as_torch else as_array(rows)
