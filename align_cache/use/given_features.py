"""Features that a caller has already, checked to be what adapters were trained on."""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from align_cache.errors import NonFiniteError, ShapeError
from align_cache.store.columns import NORM_TOLERANCE
from align_cache.store.tokens import first_problem

Features: TypeAlias = Tensor | ArrayLike
"""Rows (n, dim): floats of any width in bits, or whole numbers where they are token ids."""
_TORCH_KNOWS = tuple(map(np.dtype, (np.float16, np.float32, np.float64, np.int32, np.int64)))
_WIDEST = {"f": np.float64, "i": np.int64, "u": np.int64}
"""What other numbers become: those without a sign, of the other byte order, of a width that torch has not."""


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
        If they are no whole numbers (n, dim), or a row is not ids of the vocabulary and then padding.
    """
    rows = _as_tensor(ids, dim=dim, name=name)
    if rows.is_floating_point() or rows.dtype == torch.bool:
        raise ShapeError(f"{name} are of {rows.dtype}, expected the token ids that the text tower reads")
    if (found := first_problem(rows.cpu().numpy(), vocabulary_size)) is not None:
        row, problem = found
        raise ShapeError(f"row {row} of {name} {problem}")
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
        known = array.dtype if array.dtype in _TORCH_KNOWS else _WIDEST[array.dtype.kind]
        values = torch.from_numpy(np.require(array, known, requirements=["C", "W"]))
    if values.ndim != 2 or values.shape[1] != dim:
        raise ShapeError(f"{name} have shape {tuple(values.shape)}, expected (n, {dim})")
    return values
