"""Features to embeddings by a pair of adapters: what needs no encoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align_cache.adapters.pair import Adapter, AdapterPair
from align_cache.pairing.embedding import BLOCK_ROWS, embed
from align_cache.runtime import DeviceName, resolve_device
from align_cache.use.given_features import Features, checked_embeddings, checked_features, checked_ids
from align_cache.use.known_encoder import KnownEncoder

Rows: TypeAlias = NDArray[np.float32]


class FeatureEmbedder:
    """Embeds features into the space of two adapters, and compares what is embedded; loads no encoder.

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
        return as_array(self._embedded(self.pair.image, torch.split(rows, BLOCK_ROWS)))

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
        return as_array(self._embedded(self.pair.text, torch.split(rows, BLOCK_ROWS)))

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
        return as_array(images.to(self.device) @ texts.to(self.device).T)

    @torch.inference_mode()
    def _embedded(self, adapter: Adapter, blocks: Iterable[Tensor]) -> Tensor:
        """Embed blocks of features or ids (n, dim): (all of their rows, D), on the device."""
        none_yet = torch.empty(0, self.embed_dim, device=self.device)
        embedded = (embed(adapter, _typed(block.to(self.device))) for block in blocks if len(block))
        return torch.cat([none_yet, *embedded])


def as_array(rows: Tensor) -> Rows:
    """Return a tensor as a numpy array."""
    array: Rows = rows.cpu().numpy()
    return array


def _typed(block: Tensor) -> Tensor:
    return block if block.is_floating_point() else block.long()
