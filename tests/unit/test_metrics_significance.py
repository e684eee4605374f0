"""The permutation null: it finds what is planted and calls nothing else."""

import json

import numpy as np
import pytest

from align_cache.errors import ShapeError, UsageError
from align_cache.metrics import hsic
from align_cache.metrics.alignment import ALIGNMENT_METRICS, cka, nearest_neighbours
from align_cache.metrics.interval import estimate
from align_cache.metrics.kernel_alignment import cka_of_permutations
from align_cache.metrics.significance import permutation_null, relabelled


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(n: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shared = strength * random.normal(size=(n, 4))
    return tuple(
        unit(np.concatenate([shared, random.normal(size=(n, 12))], axis=1) @ random.normal(size=(16, 16)))
        for _ in range(2)
    )


@pytest.mark.parametrize("metric", list(ALIGNMENT_METRICS))
def test_a_planted_alignment_is_found_under_every_metric(metric):
    a, b = planted(80, 3.0, 0)
    found = permutation_null(metric, a, b, k=5, permutations=39)
    known = ALIGNMENT_METRICS[metric]
    assert found.value == pytest.approx(known.function(a, b, **({"k": 5} if known.needs_k else {})), abs=1e-6)
    assert found.p == 1 / 40
    assert 0 < found.calibrated < 1
    assert found.value > found.threshold > found.chance
    assert (found.n, found.k, found.permutations) == (80, 5 if known.needs_k else None, 39)
    assert json.loads(json.dumps(found.to_record())) == found.to_record()


@pytest.mark.parametrize("metric", list(ALIGNMENT_METRICS))
def test_the_null_values_are_those_of_shuffled_rows(metric):
    """Relabelled neighbours and reused self terms against computing each shuffle from its rows."""
    a, b = planted(40, 1.0, 1)
    found = permutation_null(metric, a, b, k=4, permutations=6, seed=9)
    known = ALIGNMENT_METRICS[metric]
    random = np.random.default_rng(9)
    null = [
        known.function(a, b[random.permutation(40)], **({"k": 4} if known.needs_k else {})) for _ in range(6)
    ]
    assert found.chance == pytest.approx(np.mean(null), abs=1e-6)
    assert found.chance_sd == pytest.approx(np.std(null), abs=1e-6)


def test_p_is_uniform_and_the_calibrated_score_zero_for_independent_rows():
    ps, calibrated = [], []
    for seed in range(150):
        a, b = planted(40, 0.0, seed)
        found = permutation_null("cka", a, b, permutations=19, seed=seed)
        ps.append(found.p)
        calibrated.append(found.calibrated)
    counts = np.histogram(ps, bins=4, range=(0, 1))[0]
    assert counts.min() > 20
    assert counts.max() < 58
    assert np.mean(np.array(ps) <= 0.05) < 0.12
    assert np.mean(np.array(calibrated) > 0) == np.mean(np.array(ps) <= 0.05)


def test_the_chance_of_mutual_knn_is_k_over_n_less_one():
    a, b = planted(60, 0.0, 3)
    found = permutation_null("mutual_knn", a, b, k=6, permutations=100)
    assert found.chance == pytest.approx(6 / 59, abs=4 * found.chance_sd / 10)


def test_a_full_agreement_is_calibrated_to_one():
    a, _ = planted(60, 1.0, 4)
    assert permutation_null("mutual_knn", a, a, k=6, permutations=20).calibrated == 1
    assert permutation_null("lcs_knn", a, a, k=6, permutations=20).calibrated == 1
    assert permutation_null("cka", a, a, permutations=20).calibrated == pytest.approx(1)


def test_neighbours_searched_before_serve_and_relabelling_is_a_shuffle_of_rows():
    a, b = planted(50, 1.0, 5)
    direct = permutation_null("mutual_knn", a, b, k=4, permutations=10)
    assert permutation_null("mutual_knn", nearest_neighbours(a, k=4), nearest_neighbours(b, k=4), k=4,
                            permutations=10) == direct  # fmt: skip
    order = np.random.default_rng(0).permutation(50)
    assert (
        relabelled(nearest_neighbours(a, k=4), order).index == nearest_neighbours(a[order], k=4).index
    ).all()


@pytest.mark.parametrize("metric", [name for name, metric in ALIGNMENT_METRICS.items() if metric.scores])
def test_the_interval_from_per_item_scores_is_as_wide_as_values_really_spread(metric):
    known = ALIGNMENT_METRICS[metric]
    extra = {"k": 5} if known.needs_k else {}
    values, errors = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        shared = random.normal(size=(150, 6))
        a, b = (unit(shared + 0.7 * random.normal(size=shared.shape)) for _ in range(2))
        values.append(known.function(a, b, **extra))
        errors.append(estimate(values[-1], known.scores(a, b, **extra)).error)
    assert 0.6 < np.mean(errors) / np.std(values, ddof=1) < 1.6


def test_what_cannot_be_tested_is_refused():
    a, b = planted(20, 0.0, 0)
    with pytest.raises(UsageError, match="mutual_knn"):
        permutation_null("mutual_nn", a, b)
    with pytest.raises(ShapeError, match="permutations is 0"):
        permutation_null("cka", a, b, permutations=0)
    with pytest.raises(ShapeError, match="works on rows"):
        permutation_null("cka", nearest_neighbours(a, k=4), b)
    with pytest.raises(ShapeError, match="k is 20"):
        permutation_null("cknna", a, b, k=20)


@pytest.mark.parametrize("n", [19, 40])
def test_shuffled_kernels_and_shuffled_products_give_the_same_cka(n, monkeypatch):
    a, b = planted(n, 1.0, 6)
    b = b[:, :7]
    orders = [np.random.default_rng(seed).permutation(n) for seed in range(4)]
    held = cka_of_permutations(a, b, orders)
    monkeypatch.setattr(hsic, "BLOCK_ROWS", n - 1)
    made_again = cka_of_permutations(a, b, orders)
    assert held == pytest.approx(made_again, abs=1e-6)
    assert made_again == pytest.approx([cka(a, b[order]) for order in orders], abs=1e-6)
