"""The embeddings of pairs one or both sides of which have noise on them; the other side stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from align_cache.adapters.pair import Adapter, AdapterPair
from align_cache.corruption.features import noisy_features
from align_cache.pairing.embedding import (
    BLOCK_ROWS,
    FeatureRows,
    Inputs,
    embed,
    embed_pairs,
    embed_rows,
    open_inputs,
)
from align_cache.pairing.pairs import PairedFeatures, Pairs, Rows
from align_cache.store import FeatureSet

Side: TypeAlias = Literal["image", "text", "both"]
Embeddings: TypeAlias = tuple[Tensor, Tensor]
"""Unit-norm embeddings of the images (n, D) and of their captions (m, D), in the order of the pairs."""


@dataclass(frozen=True, slots=True)
class NoisyPairs:
    """Some pairs, the adapters that embed them, and their embeddings without noise."""

    joined: PairedFeatures
    pairs: Pairs
    pair: AdapterPair
    inputs: Inputs
    device: torch.device
    clean: Embeddings

    @classmethod
    def open(
        cls, joined: PairedFeatures, pairs: Pairs, pair: AdapterPair, *, device: torch.device
    ) -> "NoisyPairs":
        """Embed pairs without noise; the adapters are in evaluation mode, on the device."""
        inputs = open_inputs(joined, pairs, device=device)
        embedded = embed_pairs(pair, inputs, pairs)
        return cls(joined, pairs, pair, inputs, device, (embedded.image, embedded.captions))

    @property
    def image_ids(self) -> list[str]:
        """The images' ids."""
        return [str(name) for name in self.pairs.sample_ids]

    @property
    def caption_ids(self) -> list[str]:
        """The captions' ids."""
        return [str(name) for name in self.joined.text.sample_ids[self.pairs.caption_rows]]

    def with_variant(self, noisy: FeatureSet) -> Embeddings:
        """Read images or captions, whichever the set holds, from a set that holds them with noise."""
        images, captions = self.clean
        if noisy.modality == "image":
            return self._embed_set(self.pair.image, noisy, self.image_ids), captions
        return images, self._embed_set(self.pair.text, noisy, self.caption_ids)

    def with_feature_noise(self, kind: str, severity: int, side: Side) -> Embeddings:
        """Put noise on the features of one side or of both."""
        images, captions = self.clean
        if side != "text":
            features = self.inputs.image.take(self.pairs.image_rows)
            images = self._embed_noisy(self.pair.image, features, self.image_ids, kind, severity)
        if side != "image":
            features = self.inputs.text.take(self.pairs.caption_rows)
            captions = self._embed_noisy(self.pair.text, features, self.caption_ids, kind, severity)
        return images, captions

    def _embed_set(self, adapter: Adapter, features: FeatureSet, ids: Sequence[str]) -> Tensor:
        row_of = {sample_id: row for row, sample_id in enumerate(features.sample_ids.tolist())}
        rows: Rows = np.array([row_of[name] for name in ids], dtype=np.int64)
        opened = FeatureRows(features, rows, device=self.device, where="mmap")
        with torch.inference_mode():
            return embed_rows(adapter, opened, rows)[0]

    def _embed_noisy(
        self, adapter: Adapter, features: Tensor, ids: Sequence[str], kind: str, severity: int
    ) -> Tensor:
        noisy = noisy_features(features.cpu().numpy(), ids, kind=kind, severity=severity)
        blocks = torch.split(torch.from_numpy(noisy).to(self.device), BLOCK_ROWS)
        with torch.inference_mode():
            return torch.cat([embed(adapter, block) for block in blocks])
