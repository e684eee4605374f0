"""The interval of a share whose draws come in clusters: known cases, and how often it holds the truth."""

import numpy as np
import pytest

from align_cache.errors import ShapeError
from align_cache.metrics.interval import clustered_interval, wilson_interval


@pytest.mark.parametrize(("right", "n"), [(0, 7), (1, 1), (3, 10), (10, 10), (41, 257)])
def test_clusters_of_one_draw_give_wilsons_interval(right: int, n: int) -> None:
    hits = np.arange(n) < right
    shuffled = np.random.default_rng(0).permutation(n)
    assert clustered_interval(hits, shuffled) == pytest.approx(wilson_interval(right, n))


@pytest.mark.parametrize(("right", "n"), [(0, 7), (3, 10), (10, 10)])
def test_draws_that_always_agree_count_once_a_cluster(right: int, n: int) -> None:
    hits, cluster = np.repeat(np.arange(n) < right, 5), np.repeat(np.arange(n), 5)
    assert clustered_interval(hits, cluster) == pytest.approx(wilson_interval(right, n))


def test_clusters_that_do_not_differ_count_once_each() -> None:
    hits, cluster = np.tile([True, False], 6), np.repeat(np.arange(6), 2)
    assert clustered_interval(hits, cluster) == pytest.approx(wilson_interval(3, 6))


def test_draws_that_avoid_each_other_count_no_more_than_they_are() -> None:
    hits = np.array([True, False] * 5 + [True, True, False, False])
    cluster = np.array([*np.repeat(np.arange(5), 2), 5, 5, 6, 6])
    assert clustered_interval(hits, cluster) == pytest.approx(wilson_interval(7, 14))


def test_the_interval_holds_the_true_share_as_often_as_it_says_and_the_plain_one_does_not() -> None:
    """Clusters of one to nine draws, each cluster with a share of its own."""
    random = np.random.default_rng(5)
    held, plain = 0, 0
    for _ in range(400):
        cluster = np.repeat(np.arange(150), random.integers(1, 10, 150))
        hits = random.random(len(cluster)) < random.beta(0.6, 2.4, 150)[cluster]  # 0.2 on average
        low, high = clustered_interval(hits, cluster)
        held += low <= 0.2 <= high
        low, high = wilson_interval(int(hits.sum()), len(hits))
        plain += low <= 0.2 <= high
    assert 0.92 < held / 400 < 0.98
    assert plain / 400 < 0.9


def test_what_has_no_share_is_refused() -> None:
    for hits, cluster in (([], []), ([True], [0, 1]), ([[True]], [[0]])):
        with pytest.raises(ShapeError, match="expected \\(n,\\) for both"):
            clustered_interval(hits, cluster)
