"""Where ids stand in another list of ids, without a Python object for each of them."""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.bytes_]


def rows_of(ids: Ids, known: Ids) -> NDArray[np.int64]:
    """Find ids among unique ones.

    Parameters
    ----------
    ids : bytes array, shape (n,)
        Any order, repeats allowed.
    known : bytes array, shape (m,)
        Each once.

    Returns
    -------
    int64 array, shape (n,)
        The row of ``known`` that holds each id; −1 where none does.

    Cost O(n + m) where both are sorted or alike, as extraction leaves them, else O((n + m) log (n + m));
    memory some copies of the arrays.
    """
    # The captions of an image lie together as a rule: each run is looked up once.
    starts = np.flatnonzero(np.concatenate([np.ones(min(len(ids), 1), bool), ids[1:] != ids[:-1]]))
    found = _rows_of(ids if len(starts) == len(ids) else ids[starts], known)
    return np.repeat(found, np.diff(starts, append=len(ids)))


def repeated(ids: Ids) -> bytes | None:
    """Return an id that stands twice; None where none does."""
    ordered = np.sort(ids, kind="stable")
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    return bytes(ordered[twice[0]]) if len(twice) else None


def _rows_of(ids: Ids, known: Ids) -> NDArray[np.int64]:
    if len(ids) == len(known) and bool((ids == known).all()):
        return np.arange(len(known))
    if not len(known):
        return np.full(len(ids), -1)
    place, order = np.argsort(ids, kind="stable"), np.argsort(known, kind="stable")
    sought, ordered = ids[place], known[order]
    # Sorted keys: each search begins where the last one ended, in memory that is at hand.
    at = np.minimum(np.searchsorted(ordered, sought), len(known) - 1)
    rows = np.empty(len(ids), np.int64)
    rows[place] = np.where(ordered[at] == sought, order[at], -1)
    return rows
