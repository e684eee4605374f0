"""Spread of embeddings: toy optima worked by hand, and plain references."""

import numpy as np
import pytest

from align_cache.errors import NonFiniteError, ShapeError
from align_cache.metrics.distribution import (
    effective_rank,
    mean_norm,
    modality_gap,
    uniformity,
    variance_difference,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def axes(dim: int) -> np.ndarray:
    """Plus and minus every axis: isotropic, variance 1/dim in each dimension."""
    return np.concatenate([np.eye(dim), -np.eye(dim)])


def test_variance_difference_is_zero_for_equal_spreads_in_any_order_of_rows():
    assert variance_difference(axes(5), axes(5)[::-1].copy()) == pytest.approx(0, abs=1e-12)


def test_variance_difference_of_one_point_from_the_isotropic_spread_is_one():
    assert variance_difference(np.repeat(np.eye(7)[:1], 3, axis=0), axes(7)) == pytest.approx(1)


def test_variance_difference_equals_the_definition():
    random = np.random.default_rng(0)
    z, r = unit(random.normal(size=(5000, 12)) + 1), unit(random.normal(size=(90, 12)) * np.arange(1, 13))
    expected = np.mean(np.abs(12 * z.var(axis=0) - 12 * r.var(axis=0)))
    assert variance_difference(z, r) == pytest.approx(expected, rel=1e-5)


def test_variance_difference_refuses_other_dimensions():
    with pytest.raises(ShapeError, match="5 dimensions and r 6"):
        variance_difference(axes(5), axes(6))


@pytest.mark.parametrize("dim", [1, 3, 50])
def test_effective_rank_of_an_isotropic_spread_is_the_dimension(dim):
    assert effective_rank(axes(dim)) == pytest.approx(dim, rel=1e-6)


def test_effective_rank_counts_the_directions_that_vary():
    rows = np.zeros((6, 40), dtype=np.float16)
    rows[:, :3] = axes(3)
    assert effective_rank(rows) == pytest.approx(3, rel=1e-6)
    assert effective_rank(rows + 1) == pytest.approx(3, rel=1e-3)  # an offset is no direction


def test_effective_rank_refuses_rows_that_do_not_vary():
    with pytest.raises(NonFiniteError, match="do not vary"):
        effective_rank(np.full((5000, 4), 0.1))


@pytest.mark.parametrize("block_rows", [1, 7, 1024])
def test_uniformity_equals_the_definition(block_rows):
    rows = unit(np.random.default_rng(0).normal(size=(50, 5)))
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)[~np.eye(50, dtype=bool)]
    assert uniformity(rows, block_rows=block_rows) == pytest.approx(
        np.log(np.exp(-2 * squared).mean()), abs=1e-6
    )


def test_uniformity_is_zero_for_one_point_and_near_minus_four_for_many_directions():
    assert uniformity(np.repeat(np.eye(4)[:1], 5, axis=0)) == pytest.approx(0, abs=1e-5)
    assert uniformity(unit(np.random.default_rng(0).normal(size=(300, 768)))) == pytest.approx(-4, abs=0.02)
    assert uniformity(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(-8, abs=1e-6)


def test_modality_gap_is_the_distance_of_the_means():
    assert modality_gap(axes(3), axes(3)) == pytest.approx(0, abs=1e-7)
    assert modality_gap(np.eye(3)[:1], -np.eye(3)[:1]) == pytest.approx(2)
    with pytest.raises(ShapeError, match="3 dimensions and text_embeddings 2"):
        modality_gap(np.eye(3), np.eye(2))


def test_mean_norm_is_read_before_normalisation():
    assert mean_norm(np.array([[3.0, 4.0], [0.0, 1.0]])) == pytest.approx(3)


@pytest.mark.parametrize("metric", [effective_rank, uniformity])
def test_one_row_has_no_spread(metric):
    with pytest.raises(ShapeError, match="1 rows; expected at least 2"):
        metric(np.ones((1, 3)))
