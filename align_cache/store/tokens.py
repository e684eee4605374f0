"""Rows of token ids: what may be stored in place of features, and what a reader refuses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import CacheError, CorruptError, ShapeError
from align_cache.store.layout import PAD_ID, TokensIdentity
from align_cache.store.shard import FEATURE_DTYPES, Column, Shard


def stored_tokens(ids: NDArray[Any], tokens: TokensIdentity, sample_ids: Sequence[str]) -> Column:
    """Return checked token ids as they are stored.

    Parameters
    ----------
    ids : int32 array, shape (n, max_length)
        Each row one id or more of the vocabulary, then ``PAD_ID`` up to the end.
    tokens : TokensIdentity
        Says the vocabulary's size and ``max_length``.
    sample_ids : sequence of n str

    Raises
    ------
    ShapeError
        If there is not one int32 row of ``max_length`` per sample.
    CacheError
        If a row is empty, has padding before a token, or an id outside the vocabulary; names the sample.
    """
    expected = (len(sample_ids), tokens.max_length)
    if ids.shape != expected or ids.dtype != np.int32:
        raise ShapeError(f"token ids are {ids.dtype} {ids.shape}, expected int32 {expected}")
    if (found := first_problem(ids, tokens.vocabulary_size)) is not None:
        row, problem = found
        raise CacheError(f"sample {sample_ids[row]!r} {problem}")
    return ids.astype(FEATURE_DTYPES["int32"], order="C", copy=False)


def check_stored_tokens(shard: Shard, tokens: TokensIdentity) -> None:
    """Refuse a shard with rows that are no token ids, whatever its checksum says.

    An id outside the vocabulary would index past the end of an embedding table.

    Raises
    ------
    CorruptError
        Naming the file, the sample and what is wrong with it.
    """
    if (found := first_problem(shard.features, tokens.vocabulary_size)) is not None:
        row, problem = found
        sample = shard.columns["sample_id"][row].decode("utf-8", "replace")
        raise CorruptError(f"{shard.path}: sample {sample!r} {problem}")


def first_problem(ids: NDArray[Any], vocabulary_size: int) -> tuple[int, str] | None:
    """Find the first row that is not tokens and then padding; None where all are."""
    outside = (ids < 0) | (ids >= vocabulary_size)
    padded = ids == PAD_ID
    gap = padded[:, :-1] & ~padded[:, 1:]
    wrong = outside.any(axis=1) | gap.any(axis=1) | padded[:, 0]
    if not wrong.any():
        return None
    row = int(wrong.argmax())
    if outside[row].any():
        token = ids[row, outside[row].argmax()]
        return row, f"has token id {token}, expected 0 to {vocabulary_size - 1:,}"
    if padded[row].all():
        return row, "has no token"
    return row, f"has a token after padding (id {PAD_ID})"
