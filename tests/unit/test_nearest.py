"""The nearest rows, block by block, against a plain ranking of the whole matrix."""

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from align_cache import runtime
from align_cache.errors import UsageError
from align_cache.use.nearest import Blocks, ExactIndex, FaissIndex
from tests.unit.stored import unit_rows

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")


def in_blocks(rows: NDArray[np.float32], size: int) -> Blocks:
    def blocks() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    return blocks


def ranked(queries: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """The plain way: every similarity at once, sorted, of equals the earlier row first."""
    similarity = (queries.astype(np.float64) @ rows.T.astype(np.float64)).astype(np.float32)
    return np.argsort(-similarity, axis=1, kind="stable")


@pytest.mark.parametrize(
    ("n", "block", "k"), [(1, 1, 1), (37, 5, 4), (64, 64, 64), (50, 7, 80), (100, 1, 10)]
)
def test_the_exact_index_ranks_as_the_whole_matrix_does(n: int, block: int, k: int) -> None:
    generator = np.random.default_rng(n)
    rows, queries = unit_rows(generator, n, 6), unit_rows(generator, 3, 6)
    found = ExactIndex(in_blocks(rows, block)).nearest(queries, k=k)
    expected = ranked(queries, rows)[:, :k]
    np.testing.assert_array_equal(found.rows, expected)
    similarity = np.take_along_axis(queries @ rows.T, expected, axis=1)
    np.testing.assert_allclose(found.similarity, similarity, atol=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 40])
def test_of_equals_the_earlier_row_stands_first_however_blocks_fall(block: int) -> None:
    """Every row stands four times; those of the last block have to give way to the first."""
    generator = np.random.default_rng(0)
    rows, queries = np.tile(unit_rows(generator, 10, 33), (4, 1)), unit_rows(generator, 5, 33)
    found = ExactIndex(in_blocks(rows, block)).nearest(queries, k=6)
    best = ranked(queries, rows[:10])
    expected = np.stack(
        [best[:, 0] + shift for shift in (0, 10, 20, 30)] + [best[:, 1], best[:, 1] + 10], axis=1
    )
    np.testing.assert_array_equal(found.rows, expected)


def test_no_candidates_and_no_queries_find_nothing() -> None:
    generator = np.random.default_rng(0)
    rows, queries = unit_rows(generator, 4, 3), unit_rows(generator, 2, 3)
    assert ExactIndex(in_blocks(rows[:0], 2)).nearest(queries, k=3).rows.shape == (2, 0)
    assert ExactIndex(in_blocks(rows, 2)).nearest(queries[:0], k=3).rows.shape == (0, 3)


@needs_faiss
@pytest.mark.parametrize(("n", "k"), [(1, 1), (50, 7), (200, 300)])
def test_faiss_finds_what_the_exact_index_finds(n: int, k: int) -> None:
    generator = np.random.default_rng(n)
    rows, queries = unit_rows(generator, n, 16), unit_rows(generator, 4, 16)
    exact, flat = (kind(in_blocks(rows, 30)).nearest(queries, k=k) for kind in (ExactIndex, FaissIndex))
    np.testing.assert_array_equal(flat.rows, exact.rows)
    np.testing.assert_allclose(flat.similarity, exact.similarity, atol=1e-6)


@needs_faiss
def test_faiss_without_candidates_finds_nothing() -> None:
    found = FaissIndex(lambda: []).nearest(np.ones((2, 3), np.float32), k=4)
    assert found.rows.shape == found.similarity.shape == (2, 0)


def test_without_faiss_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match="faiss") as raised:
        FaissIndex(lambda: [])
    assert raised.value.hint == "pip install 'align-cache[faiss]'"
