"""Features of pairs as tensors, and the embeddings that adapters make of them.

Training, validation and evaluation all look at pairs through the same named views: ``image``, ``text``,
``aligned`` and ``reference``.
"""

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from align_cache.adapters import Adapter, AdapterPair, fuse, unit
from align_cache.metrics.summary import concatenate
from align_cache.pairs import PairedFeatures, Pairs, Rows
from align_cache.store import FeatureSet

Where: TypeAlias = Literal["auto", "memory", "mmap"]
Views: TypeAlias = dict[str, Tensor]
"""Unit-norm float32 rows (n, dim) of the same n pairs, by name; widths may differ."""

_BLOCK_ROWS = 4096


class FeatureRows:
    """Rows of one feature set as float32 tensors on a device, from memory or from the map."""

    def __init__(
        self,
        features: FeatureSet,
        rows: Rows,
        *,
        device: torch.device,
        where: Where,
    ) -> None:
        self._features, self._device = features, device
        self._copied: Tensor | None = None
        n_bytes = len(rows) * features.dim * features.dtype.itemsize
        if where == "memory" or (where == "auto" and n_bytes < _memory_bytes() // 8):
            kept = np.unique(rows)
            self._position = np.zeros(features.rows, dtype=np.int64)
            self._position[kept] = np.arange(len(kept))
            self._copied = torch.from_numpy(features.take(kept)).to(device)

    def take(self, rows: Rows) -> Tensor:
        """Gather rows, float32 (len(rows), dim)."""
        if self._copied is None:
            return torch.from_numpy(self._features.take(rows)).to(self._device).float()
        index = torch.from_numpy(self._position[rows]).to(self._device)
        return self._copied.index_select(0, index).float()


@dataclass(frozen=True, slots=True)
class Inputs:
    """The features that a run reads."""

    image: FeatureRows
    text: FeatureRows
    reference: FeatureRows | None


def embed(adapter: Adapter, features: Tensor, *, bf16: bool = False) -> Tensor:
    """Give unit-norm float32 embeddings (n, D) of float32 features (n, dim)."""
    with torch.autocast(features.device.type, torch.bfloat16, enabled=bf16):
        raw = adapter(features)
    return unit(raw)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of some pairs in evaluation mode, float32."""

    image: Tensor
    """(n images, D), unit-norm."""
    captions: Tensor
    """(m captions, D), unit-norm, in the order of ``Pairs.caption_rows``."""
    mean_norm: dict[str, float]
    """Mean length of a row before it was normalised, by modality."""


@torch.inference_mode()
def embed_pairs(pair: AdapterPair, inputs: Inputs, pairs: Pairs) -> Embedded:
    """Embed every image and every caption of ``pairs``, in blocks."""
    was_training = pair.training
    pair.eval()
    image, image_norm = _embed_rows(pair.image, inputs.image, pairs.image_rows)
    captions, text_norm = _embed_rows(pair.text, inputs.text, pairs.caption_rows)
    pair.train(was_training)
    return Embedded(image, captions, {"image": image_norm, "text": text_norm})


def _embed_rows(adapter: Adapter, features: FeatureRows, rows: Rows) -> tuple[Tensor, float]:
    raw = torch.cat([adapter(features.take(rows[i : i + _BLOCK_ROWS])).float()
                     for i in range(0, len(rows), _BLOCK_ROWS)])  # fmt: skip
    return unit(raw), raw.norm(dim=1).mean().item()


def open_inputs(joined: PairedFeatures, *used: Pairs, device: torch.device, where: Where = "auto") -> Inputs:
    """Make the features of some pairs ready to be read."""

    def rows_of(features: FeatureSet, name: str) -> FeatureRows:
        rows = np.concatenate([getattr(pairs, name) for pairs in used])
        return FeatureRows(features, rows, device=device, where=where)

    reference = rows_of(joined.reference, "reference_rows") if joined.reference is not None else None
    return Inputs(rows_of(joined.image, "image_rows"), rows_of(joined.text, "caption_rows"), reference)


def embedding_views(embedded: Embedded, inputs: Inputs, pairs: Pairs) -> Views:
    """View embeddings; an image's first caption stands for its text, as one row a pair is compared."""
    text = embedded.captions[torch.from_numpy(pairs.caption_starts[:-1])]
    aligned = fuse(embedded.image, text)
    return {"image": embedded.image, "text": text, "aligned": aligned, **_reference_view(inputs, pairs)}


def feature_views(inputs: Inputs, pairs: Pairs) -> tuple[Views, Tensor]:
    """View raw features, ``aligned`` being their concatenation; and every caption's features (m, dim)."""
    image = unit(inputs.image.take(pairs.image_rows))
    captions = unit(inputs.text.take(pairs.caption_rows))
    text = captions[torch.from_numpy(pairs.caption_starts[:-1])]
    views = {
        "image": image,
        "text": text,
        "aligned": concatenate(image, text),
        **_reference_view(inputs, pairs),
    }
    return views, captions


def _reference_view(inputs: Inputs, pairs: Pairs) -> Views:
    if inputs.reference is None or pairs.reference_rows is None:
        return {}
    return {"reference": unit(inputs.reference.take(pairs.reference_rows))}


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
