"""Features that a caller has already, checked to be what adapters were trained on."""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from align_cache.errors import NonFiniteError, ShapeError
from align_cache.store.columns import NORM_TOLERANCE
from align_cache.store.layout import PAD_ID

Features: TypeAlias = Tensor | ArrayLike
"""Rows (n, dim): floats of any width in bits, or whole numbers where they are token ids."""


def checked_features(features: Features, *, dim: int, name: str) -> Tensor:
    """Return unit-norm features as a float32 tensor (n, dim), on the device they are on.

    Raises
    ------
    ShapeError
        If they are no floats (n, dim), or not of unit length to the cache's own tolerance.
    NonFiniteError
    """
    rows = _as_tensor(features, dim=dim, name=name)
    if not rows.is_floating_point():
        raise ShapeError(f"{name} are of {rows.dtype}, expected floats")
    rows = rows.float()
    if not rows.isfinite().all():
        raise NonFiniteError(f"{name} hold NaN or infinity")
    norms = rows.norm(dim=1)
    off = (norms - 1).abs() >= NORM_TOLERANCE
    if off.any():
        row = int(off.int().argmax())
        raise ShapeError(
            f"row {row} of {name} has norm {norms[row].item():.6g}, expected 1, as a cache holds them",
            hint="divide each row by its norm",
        )
    return rows


def checked_ids(ids: Features, *, dim: int, vocabulary_size: int, name: str) -> Tensor:
    """Return token ids as an int64 tensor (n, dim), on the device they are on.

    Raises
    ------
    ShapeError
        If they are no whole numbers (n, dim), beyond the vocabulary, or a row begins with padding.
    """
    rows = _as_tensor(ids, dim=dim, name=name)
    if rows.is_floating_point() or rows.dtype == torch.bool:
        raise ShapeError(f"{name} are of {rows.dtype}, expected the token ids that the text tower reads")
    unknown = rows[(rows < 0) | (rows >= vocabulary_size)]
    if len(unknown):
        raise ShapeError(f"{name} hold {int(unknown[0])}, expected ids below {vocabulary_size:,}")
    if (rows[:, 0] == PAD_ID).any():
        raise ShapeError(f"row {int((rows[:, 0] == PAD_ID).int().argmax())} of {name} begins with padding")
    return rows.long()


def checked_embeddings(embeddings: Features, *, dim: int, name: str) -> Tensor:
    """Return embeddings as a float32 tensor (n, dim)."""
    rows = _as_tensor(embeddings, dim=dim, name=name)
    if not rows.is_floating_point():
        raise ShapeError(f"{name} are of {rows.dtype}, expected floats")
    return rows.float()


def _as_tensor(values: Features, *, dim: int, name: str) -> Tensor:
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise ShapeError(f"{name} are of {array.dtype}, expected numbers")
        if array.dtype.kind == "u":
            array = array.astype(np.int64)
        values = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if values.ndim != 2 or values.shape[1] != dim:
        raise ShapeError(f"{name} have shape {tuple(values.shape)}, expected (n, {dim})")
    return values
