"""What may go into a shard: rows checked and turned into the arrays that are stored.

Everything refused here is refused with the sample's id, before a byte is written.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import CacheError, NonFiniteError, ShapeError
from align_cache.store.layout import TokensIdentity
from align_cache.store.shard import FEATURE_DTYPES, LABEL_DTYPE, MAX_STRING_BYTES, Column
from align_cache.store.tokens import stored_tokens

NORM_TOLERANCE = 1e-3
"""How far the norm of a stored row may be from 1; float16 rounding moves it by about 2e-4."""


def build_columns(
    *,
    features: NDArray[Any],
    dtype: str,
    tokens: TokensIdentity | None,
    sample_id: Sequence[str],
    group_id: Sequence[str] | None,
    label: Sequence[int | None] | NDArray[np.integer[Any]] | None,
    split: Sequence[str | None] | None,
    text: Sequence[str] | None,
    skipped: Sequence[tuple[str, str]],
) -> dict[str, Column]:
    """Return the arrays of one shard; arguments as in :meth:`FeatureSetWriter.write_shard`.

    ``tokens`` is not None where the rows are token ids.
    """
    ids = list(sample_id)
    columns: dict[str, Column] = {"sample_id": encode_strings(ids, "sample_id", ids, allow_empty=False)}
    if tokens is None:
        columns["features"] = stored_features(features, dtype, ids)
    else:
        columns["features"] = stored_tokens(features, tokens, ids)
    splits = ["" if name is None else name for name in ([None] * len(ids) if split is None else split)]
    columns["split"] = encode_strings(splits, "split", ids)
    skipped_ids = [name for name, _ in skipped]
    columns["skipped_id"] = encode_strings(skipped_ids, "skipped_id", skipped_ids, allow_empty=False)
    columns["skipped_reason"] = encode_strings([why for _, why in skipped], "skipped_reason", skipped_ids)
    if group_id is not None:
        columns["group_id"] = encode_strings(group_id, "group_id", ids, allow_empty=False)
    if text is not None:
        columns["text"] = encode_strings(text, "text", ids)
    labels = None if label is None else _encode_labels(label, ids)
    if labels is not None:
        columns["label"] = labels
    return columns


def stored_features(features: NDArray[Any], dtype: str, ids: Sequence[str]) -> Column:
    """Cast checked unit-norm float32 features, shape (n, dim), to the stored dtype.

    Raises
    ------
    ShapeError
        If there is not one float32 row per id.
    NonFiniteError
        If a row holds NaN or infinity; names the sample.
    CacheError
        If a row is not unit-norm, before or after the cast; names the sample.
    """
    if features.ndim != 2 or len(features) != len(ids) or features.shape[1] == 0:
        raise ShapeError(f"features have shape {features.shape}, expected ({len(ids)}, dim)")
    if features.dtype != np.float32:
        raise ShapeError(f"features have dtype {features.dtype}, expected float32")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise NonFiniteError(f"sample {ids[int(finite.argmin())]!r} has NaN or infinity in its features")
    _check_norms(features, ids, "as given")
    stored = features.astype(FEATURE_DTYPES[dtype], order="C")
    _check_norms(stored.astype(np.float32, copy=False), ids, f"as {dtype}")
    return stored


def unit_rows(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scale rows (n, dim) to unit length, and say which have one: those that are finite and not zero.

    Returns
    -------
    (float32 array of the rows that do, shape (m, dim); bool array, shape (n,))
    """
    # In float64, where no square of a float32 overflows or vanishes.
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    good = np.isfinite(features).all(axis=1) & (norms[:, 0] > 0)
    return (features[good] / norms[good]).astype(np.float32), good


def _check_norms(features: NDArray[np.float32], ids: Sequence[str], moment: str) -> None:
    with np.errstate(over="ignore"):  # a norm of infinity is as wrong as any other
        norms = np.linalg.norm(features, axis=1)
    off = np.abs(norms - 1.0) >= NORM_TOLERANCE
    if off.any():
        row = int(off.argmax())
        raise CacheError(f"sample {ids[row]!r} has norm {norms[row]:.6g} {moment}, expected 1")


def encode_strings(
    values: Sequence[str], what: str, ids: Sequence[object], *, allow_empty: bool = True
) -> NDArray[np.bytes_]:
    """Return strings as fixed-length UTF-8 bytes, as wide as the longest and at least one byte.

    Raises
    ------
    CacheError
        Naming the sample, if a value is no string, holds NUL (which pads the field) or a lone surrogate
        (which UTF-8 cannot hold), is longer than 8,192 bytes, or empty where that cannot be.
    """
    if len(values) != len(ids):
        raise ShapeError(f"{what} has {len(values)} values, expected {len(ids)}")
    encoded = []
    for value, sample in zip(values, ids, strict=True):
        data, problem = _encode(value, allow_empty=allow_empty)
        if problem:
            raise CacheError(f"the {what} of sample {sample!r} {problem}")
        encoded.append(data)
    width = max(map(len, encoded), default=1) or 1
    return np.array(encoded, dtype=f"S{width}")


def _encode(value: object, *, allow_empty: bool) -> tuple[bytes, str | None]:
    if not isinstance(value, str):
        return b"", f"is {type(value).__name__}, expected text"
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError:
        return b"", "holds a lone surrogate, which is no text"
    if b"\0" in data:
        return b"", "holds a NUL character"
    if len(data) > MAX_STRING_BYTES:
        return b"", f"has {len(data):,} bytes, expected at most {MAX_STRING_BYTES:,}"
    if not data and not allow_empty:
        return b"", "is empty"
    return data, None


def _encode_labels(
    label: Sequence[int | None] | NDArray[np.integer[Any]], ids: Sequence[str]
) -> NDArray[np.int64] | None:
    """Return the labels, or None where no sample has one; some with and some without is refused."""
    if len(label) != len(ids):
        raise ShapeError(f"label has {len(label)} values, expected {len(ids)}")
    values = label.tolist() if isinstance(label, np.ndarray) else list(label)
    if all(value is None for value in values):
        return None
    bounds = np.iinfo(LABEL_DTYPE)
    for value, sample in zip(values, ids, strict=True):
        is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not is_integer or not bounds.min <= value <= bounds.max:
            raise CacheError(f"the label of sample {sample!r} is {value!r}, expected an integer of 64 bits")
    return np.array(values, dtype=LABEL_DTYPE)
