"""Probes against scikit-learn, and the promises about scaling, strengths, labels and seeds."""

import json
import warnings

import numpy as np
import pytest
import torch

from align_cache.errors import NonFiniteError, ShapeError
from align_cache.metrics.logistic import fit_logistic, spectrum
from align_cache.metrics.probe import STRENGTHS, knn_probe, linear_probe, mlp_probe, ridge_probe
from align_cache.metrics.probe_data import held_out_rows, prepare

HEADS = [linear_probe, ridge_probe, mlp_probe, knn_probe]
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clusters(n_train: int, n_test: int, dim: int, classes: int, *, spread: float, seed: int = 0) -> Data:
    """Overlapping classes on correlated columns of very different scale."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(dim, dim)) * np.logspace(0, -1.5, dim)[:, None]
    centres = random.normal(size=(classes, dim))
    labels = random.integers(0, classes, n_train + n_test)
    labels[:classes] = np.arange(classes)
    rows = unit((centres[labels] + spread * random.normal(size=(len(labels), dim))) @ mixing).astype(
        np.float32
    )
    return rows[:n_train], labels[:n_train], rows[n_train:], labels[n_train:]


def scaled(data: Data) -> Data:
    train, labels, test, test_labels = data
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    return (train - mean) / deviation, labels, (test - mean) / deviation, test_labels


@pytest.fixture(scope="module")
def data() -> Data:
    return clusters(3000, 1500, 48, 5, spread=4.0)


@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-5])
def test_the_linear_probe_is_scikit_learns_logistic_regression(data, strength):
    from sklearn.linear_model import LogisticRegression

    train, labels, test, test_labels = scaled(data)
    rival = LogisticRegression(C=1 / (len(train) * strength), max_iter=5000, tol=1e-6).fit(train, labels)
    found = linear_probe(*data, strengths=[strength])
    assert found.converged
    assert 0.4 < found.accuracy < 0.99  # neither chance nor trivial
    assert found.accuracy == pytest.approx(rival.score(test, test_labels), abs=0.0015)


@pytest.mark.parametrize(("n", "dim"), [(400, 20), (37, 60), (40, 1)])
def test_the_fit_reaches_the_minimum_of_the_objective_also_with_fewer_rows_than_columns(n, dim):
    from sklearn.linear_model import LogisticRegression

    strength = 1e-2
    data = prepare(*clusters(n, 5, dim, 3, spread=2.0))
    fit = fit_logistic(
        data.train, data.train_class, 3, strength=strength, basis=spectrum(data.train), start=None
    )
    rival = LogisticRegression(C=1 / (n * strength), max_iter=5000, tol=1e-8).fit(
        data.train.numpy().astype(np.float64), data.train_class.numpy()
    )

    def objective(weight: np.ndarray, bias: np.ndarray) -> float:
        score = data.train.numpy().astype(np.float64) @ weight + bias
        right = score[np.arange(n), data.train_class.numpy()]
        loss = (
            np.log(np.exp(score - score.max(axis=1, keepdims=True)).sum(axis=1)) + score.max(axis=1) - right
        )
        return float(loss.mean() + strength / 2 * (weight**2).sum())

    assert fit.converged
    assert objective(fit.weight.numpy(), fit.bias.numpy()) == pytest.approx(
        objective(rival.coef_.T, rival.intercept_), rel=1e-4
    )


def test_a_start_and_a_foreign_basis_change_the_way_but_not_the_end():
    data = prepare(*clusters(500, 5, 20, 3, spread=2.0))
    own, foreign = spectrum(data.train), spectrum(data.train[:100])
    cold = fit_logistic(data.train, data.train_class, 3, strength=1e-3, basis=own, start=None)
    other = fit_logistic(data.train, data.train_class, 3, strength=1e-1, basis=own, start=None)
    warm = fit_logistic(data.train, data.train_class, 3, strength=1e-3, basis=foreign, start=other)
    assert warm.weight.numpy() == pytest.approx(cold.weight.numpy(), abs=5e-3)


@pytest.mark.parametrize("strength", [1e-1, 1e-4])
def test_the_ridge_probe_is_scikit_learns_ridge_on_one_hot_labels(data, strength):
    from sklearn.linear_model import Ridge

    train, labels, test, test_labels = scaled(data)
    rival = Ridge(alpha=strength * len(train)).fit(train, np.eye(5)[labels])
    expected = np.mean(rival.predict(test).argmax(axis=1) == test_labels)
    assert ridge_probe(*data, strengths=[strength]).accuracy == pytest.approx(expected, abs=0.0015)


def test_the_knn_probe_of_one_neighbour_is_scikit_learns(data):
    from sklearn.neighbors import KNeighborsClassifier

    train, labels, test, test_labels = scaled(data)
    rival = KNeighborsClassifier(1, metric="cosine").fit(train, labels)
    assert knn_probe(*data, k=1).accuracy == pytest.approx(rival.score(test, test_labels), abs=0.0015)


@pytest.mark.parametrize("probe", HEADS)
def test_well_separated_classes_are_told_apart_by_every_head(probe):
    found = probe(*clusters(600, 200, 16, 4, spread=0.2))
    assert found.accuracy > 0.98
    assert found.interval[0] < found.accuracy <= found.interval[1]
    assert (found.n_train, found.n_test, found.n_classes) == (600, 200, 4)
    assert json.loads(json.dumps(found.to_record()))["accuracy"] == found.accuracy


@pytest.mark.parametrize("probe", HEADS)
def test_labels_without_relation_give_chance(probe):
    train, labels, test, test_labels = clusters(600, 600, 16, 4, spread=1.0)
    random = np.random.default_rng(1)
    found = probe(train, random.permutation(labels), test, random.permutation(test_labels))
    assert abs(found.accuracy - 0.25) < 0.08


@pytest.mark.parametrize("probe", HEADS)
def test_scale_and_offset_of_the_columns_do_not_matter(probe):
    train, labels, test, test_labels = clusters(400, 200, 16, 4, spread=3.0)
    factor, offset = np.logspace(-3, 3, 16, dtype=np.float32), np.linspace(0, 1e-3, 16, dtype=np.float32)
    moved = probe(train * factor + offset, labels, test * factor + offset, test_labels)
    assert moved.accuracy == pytest.approx(probe(train, labels, test, test_labels).accuracy, abs=0.011)


@pytest.mark.parametrize("probe", HEADS)
def test_labels_may_be_any_integers_and_those_unknown_to_train_are_errors(probe):
    train, labels, test, test_labels = clusters(600, 200, 16, 4, spread=0.2)
    names = np.array([-7, 0, 3, 10**12])
    known = probe(train, names[labels], test, names[test_labels])
    assert known.accuracy == probe(train, labels, test, test_labels).accuracy
    absent = np.where(test_labels == 2, 99, test_labels)
    lost = np.mean(test_labels == 2)
    assert probe(train, labels, test, absent).accuracy == pytest.approx(known.accuracy - lost, abs=0.02)


@pytest.mark.parametrize("probe", HEADS)
def test_the_same_seed_gives_the_same_result_and_the_global_random_state_is_left_alone(probe):
    data = clusters(300, 100, 8, 3, spread=2.0)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = probe(*data)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert probe(*data) == first


@pytest.mark.parametrize("probe", [linear_probe, ridge_probe])
def test_the_strength_is_chosen_on_train_alone_and_the_larger_of_equals_is_taken(probe):
    train, labels, test, test_labels = clusters(400, 100, 16, 3, spread=3.0)
    found = probe(train, labels, test, test_labels)
    assert list(found.held_out) == sorted(STRENGTHS, reverse=True)
    best = max(found.held_out.values())
    assert found.strength == max(s for s, accuracy in found.held_out.items() if accuracy == best)
    swapped = probe(train, labels, test[::-1].copy(), np.roll(test_labels, 1))
    assert (swapped.strength, swapped.held_out) == (found.strength, found.held_out)


def test_one_strength_needs_no_held_out_rows():
    assert linear_probe(*clusters(60, 10, 4, 2, spread=1.0), strengths=[0.1]).held_out == {}


@pytest.mark.parametrize("counts", [[1, 1], [2, 1], [9, 1], [10, 10], [33, 20, 7], [100]])
def test_about_a_tenth_of_every_class_is_held_out_and_never_everything(counts):
    classes = torch.tensor(np.repeat(np.arange(len(counts)), counts))
    fitted, held_out = held_out_rows(classes, seed=0)
    assert sorted(fitted.tolist() + held_out.tolist()) == list(range(len(classes)))
    assert len(fitted) > 0
    assert len(held_out) > 0
    for number, count in enumerate(counts):
        assert abs(int((classes[held_out] == number).sum()) - count / 10) <= 1
    assert held_out.tolist() == held_out_rows(classes, seed=0)[1].tolist()


@pytest.mark.parametrize("probe", [linear_probe, ridge_probe, mlp_probe])
def test_two_rows_of_two_classes_are_the_least_that_works(probe):
    assert probe(np.eye(2), [0, 1], np.eye(2), [0, 1]).n_train == 2


@pytest.mark.parametrize("probe", HEADS)
def test_a_constant_column_is_ignored(probe):
    train, labels, test, test_labels = clusters(300, 100, 8, 3, spread=0.3)
    train[:, 2], test[:, 2] = 0.1, 0.1
    assert probe(train, labels, test, test_labels).accuracy > 0.9


@pytest.mark.parametrize("probe", HEADS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": [1, 1, 1, 1]}, r"one class \(1\)"),
        ({"train": np.eye(4)[:1], "train_labels": [0]}, "1 rows; expected at least 2"),
        ({"train_labels": [0, 1]}, "expected 4 integers"),
        ({"test_labels": [0.5, 1, 0, 1]}, "test_labels holds float64"),
        ({"test": np.eye(4)[:, :3]}, "4 dimensions and test 3"),
        ({"test": np.eye(4)[:0], "test_labels": []}, "0 rows"),
    ],
)
def test_what_cannot_be_probed_is_refused_in_one_line_before_work(probe, change, message):
    whole = {"train": np.eye(4), "train_labels": [0, 1, 0, 1], "test": np.eye(4), "test_labels": [0, 1, 0, 1]}
    with pytest.raises(ShapeError, match=message) as caught:
        probe(**(whole | change))
    assert "\n" not in str(caught.value)


def test_nan_and_settings_out_of_range_are_refused():
    rows, labels = np.eye(4), [0, 1, 0, 1]
    with pytest.raises(NonFiniteError, match="test holds NaN"):
        linear_probe(rows, labels, np.full((4, 4), np.nan), labels)
    for strengths in ([], [0.0], [-1.0], [float("inf")]):
        with pytest.raises(ShapeError, match="strengths"):
            linear_probe(rows, labels, rows, labels, strengths=strengths)
    for k in (0, 5):
        with pytest.raises(ShapeError, match=f"k is {k}"):
            knn_probe(rows, labels, rows, labels, k=k)
    for setting in ({"epochs": 0}, {"batch_size": 0}, {"hidden_dim": 0}, {"dropout": 1.0}, {"lr": 0.0}):
        with pytest.raises(ShapeError, match=next(iter(setting))):
            mlp_probe(rows, labels, rows, labels, **setting)


def test_a_read_only_float16_memmap_is_read_without_a_warning(tmp_path):
    train, labels, test, test_labels = clusters(300, 100, 8, 3, spread=0.3)
    train.astype(np.float16).tofile(tmp_path / "train")
    mapped = np.memmap(tmp_path / "train", dtype=np.float16, mode="r", shape=train.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert linear_probe(mapped, labels, test, test_labels).accuracy > 0.95
