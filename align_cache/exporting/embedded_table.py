"""Embeddings of one modality with the ids of their rows, made block by block from the map."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.adapters.pair import Adapter
from align_cache.pairing.embedding import BLOCK_ROWS, FeatureRows, embed
from align_cache.pairing.pairs import Rows

Modality: TypeAlias = Literal["image", "text"]
Column: TypeAlias = NDArray[np.bytes_] | NDArray[np.int64]
"""Text as UTF-8, empty where there is none, or whole numbers, shape (rows,)."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedTable:
    """Rows of a feature set, their embeddings and what is known of them; no embedding is kept."""

    modality: Modality
    columns: Mapping[str, Column]
    """By name, ``sample_id`` first."""
    adapter: Adapter
    """In evaluation mode, on the device of ``features``."""
    features: FeatureRows
    rows: Rows
    dim: int
    """Components of an embedding."""

    def __len__(self) -> int:
        return len(self.rows)

    def parts(self) -> Iterator[slice]:
        """Cut the rows into blocks, the last one shorter."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield slice(start, min(start + BLOCK_ROWS, len(self)))

    @torch.inference_mode()
    def embeddings(self, part: slice) -> NDArray[np.float32]:
        """Embed some rows: unit-norm, shape (rows of the part, dim), C-contiguous."""
        made: NDArray[np.float32] = embed(self.adapter, self.features.take(self.rows[part])).cpu().numpy()
        return np.ascontiguousarray(made)

    def values(self, name: str, part: slice) -> NDArray[Any]:
        """Return a column of some rows, text decoded."""
        column: NDArray[Any] = self.columns[name][part]
        return np.strings.decode(column, "utf-8") if column.dtype.kind == "S" else column
