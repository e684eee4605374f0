"""The rows nearest to a few queries, found block by block: never a matrix of all similarities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from align_cache.runtime import require_extra

Embeddings = NDArray[np.float32]
Blocks = Callable[[], Iterable[Embeddings]]
"""Gives all candidates, some thousands of unit-norm rows (rows, D) at a time, from the first on."""


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """What stands first for each query, best first; of equals the earlier row."""

    rows: NDArray[np.int64]
    """Rows of the candidates, shape (n_queries, k)."""
    similarity: Embeddings
    """Their inner products with the query, shape (n_queries, k)."""


class Index(Protocol):
    """Candidates that can be searched."""

    def nearest(self, queries: Embeddings, *, k: int) -> Nearest:
        """Find the k candidates of largest inner product with each of (n_queries, D) queries.

        There are fewer than k where there are fewer candidates.
        """
        ...


class ExactIndex:
    """Every candidate is compared with every query, each time anew.

    Parameters
    ----------
    blocks : callable
        Asked at each search: from a memory map, candidates of any number take the memory of one block.

    A product in float32 tells which candidates of a block may be among the best. Theirs is computed again in
    float64 and rounded to float32, so that what is found, and in which order, does not depend on how
    candidates fall into blocks.

    A search costs O(n_queries · n · D) time and O(block · (n_queries + D)) memory.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def nearest(self, queries: Embeddings, *, k: int) -> Nearest:
        """Find the k nearest candidates of each query; see :class:`Index`."""
        best, first_row = [_Best(query, k) for query in queries], 0
        for block in self._blocks():
            for kept, coarse in zip(best, queries @ block.T, strict=True):
                kept.update(block, coarse, first_row)
            first_row += len(block)
        shape = (len(best), min(k, first_row))
        rows, similarity = np.empty(shape, np.int64), np.empty(shape, np.float32)
        for place, kept in enumerate(best):
            rows[place], similarity[place] = kept.rows, kept.similarity
        return Nearest(rows, similarity)


class _Best:
    """The best candidates of one query among those seen so far."""

    def __init__(self, query: Embeddings, k: int) -> None:
        self.rows, self.similarity = np.empty(0, np.int64), np.empty(0, np.float32)
        self._query, self._k = query.astype(np.float64), k
        # How far a product of unit rows in float32 can be off, whatever the order of its sum.
        self._slack = len(query) * np.finfo(np.float32).eps

    def update(self, block: Embeddings, coarse: Embeddings, first_row: int) -> None:
        """See one block more, whose rows begin at ``first_row``; ``coarse`` are its float32 products."""
        near = np.flatnonzero(coarse >= self._least(coarse) - 2 * self._slack)
        if not len(near):
            return
        exact = (block[near].astype(np.float64) @ self._query).astype(np.float32)
        similarity = np.concatenate([self.similarity, exact])
        rows = np.concatenate([self.rows, near + first_row])
        order = np.argsort(-similarity, kind="stable")[: self._k]  # of equals the earlier row stays first
        self.rows, self.similarity = rows[order], similarity[order]

    def _least(self, coarse: Embeddings) -> np.float32:
        """Return what k candidates reach already, as far as is known."""
        least = np.float32(-np.inf)
        if len(self.rows) == self._k:
            least = self.similarity[-1]
        elif len(coarse) >= self._k:
            least = np.partition(coarse, -self._k)[-self._k]
        return least


class FaissIndex:
    """The same by faiss, whose flat index is exact too; it holds all candidates in memory.

    Parameters
    ----------
    blocks : callable
        Asked once.

    Products are summed in float32, so that nearly equal candidates may change places.

    Raises
    ------
    UsageError
        If faiss is not installed.
    """

    def __init__(self, blocks: Blocks) -> None:
        require_extra("faiss", extra="faiss", needed_for="--index faiss")
        import faiss

        self._index = None
        for block in blocks():
            if self._index is None:
                self._index = faiss.IndexFlatIP(block.shape[1])
            self._index.add(np.ascontiguousarray(block))

    def nearest(self, queries: Embeddings, *, k: int) -> Nearest:
        """Find the k nearest candidates of each query; see :class:`Index`."""
        if self._index is None:
            return Nearest(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
        similarity, rows = self._index.search(np.ascontiguousarray(queries), min(k, self._index.ntotal))
        order = np.lexsort((rows, -similarity), axis=1)
        return Nearest(np.take_along_axis(rows, order, axis=1), np.take_along_axis(similarity, order, axis=1))
