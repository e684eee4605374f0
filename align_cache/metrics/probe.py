"""Probes: classifiers that are trained on frozen rows to judge them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from align_cache.errors import ShapeError
from align_cache.metrics.arrays import BLOCK_ROWS, Array, Integers, exact, spans
from align_cache.metrics.logistic import Classifier, Spectrum, fit_logistic, spectrum
from align_cache.metrics.probe_data import ProbeData, ProbeResult, held_out_rows, prepare

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Default L2 strengths of the linear and the ridge probe: see :mod:`align_cache.metrics.logistic`."""


@exact
def linear_probe(
    train: Array,
    train_labels: Integers,
    test: Array,
    test_labels: Integers,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> ProbeResult:
    """Judge a representation by multinomial logistic regression.

    Parameters
    ----------
    train, test : float array, shape (n_train, dim) and (n_test, dim)
        Scaled here to zero mean and unit variance per column, by train.
    train_labels, test_labels : integer array, shape (n_train,) and (n_test,)
        Any integers. A test label that train does not have counts as an error.
    strengths : sequence of float
        L2 strengths, positive; the one that is best on a held-out tenth of train is taken (the larger of
        equals), and fitted again on all of train. scikit-learn's C is 1 / (n_train · strength).
    seed : int
        Of the held-out tenth.

    Returns
    -------
    ProbeResult

    Raises
    ------
    ShapeError
        Rows and labels that do not match, one class, fewer than two rows, no strength.
    NonFiniteError
    """
    return _chosen_probe(
        "linear", _logistic_path, prepare(train, train_labels, test, test_labels), strengths, seed
    )


@exact
def ridge_probe(
    train: Array,
    train_labels: Integers,
    test: Array,
    test_labels: Integers,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> ProbeResult:
    """Judge a representation by least squares on one-hot labels: :func:`linear_probe`, faster and coarser.

    Parameters, result and errors are those of :func:`linear_probe`; the objective is
    mean ‖W x + b − onehot‖² + strength · ‖W‖².
    """
    return _chosen_probe(
        "ridge", _ridge_path, prepare(train, train_labels, test, test_labels), strengths, seed
    )


@exact
def mlp_probe(
    train: Array,
    train_labels: Integers,
    test: Array,
    test_labels: Integers,
    *,
    hidden_dim: int = 512,
    batch_size: int = 128,
    epochs: int = 10,
    dropout: float = 0.1,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
) -> ProbeResult:
    """Judge a representation by a head with one hidden layer: Linear, GELU, dropout, Linear.

    Parameters
    ----------
    train, train_labels, test, test_labels
        As in :func:`linear_probe`.
    hidden_dim, batch_size, epochs, dropout, lr, weight_decay
        Of the head and of its AdamW, whose rate falls to zero along a cosine. Nothing is chosen on test.
    seed : int
        Of initial weights, batches and dropout; torch's global random state is left as it was.

    Returns
    -------
    ProbeResult

    Raises
    ------
    ShapeError, NonFiniteError
    """
    _check_head(hidden_dim=hidden_dim, batch_size=batch_size, epochs=epochs, dropout=dropout, lr=lr)
    data = prepare(train, train_labels, test, test_labels)
    device = data.train.device
    forked = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(forked, device_type=device.type if forked else "cuda"), torch.enable_grad():
        torch.manual_seed(seed)
        head = nn.Sequential(
            nn.Linear(data.train.shape[1], hidden_dim), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden_dim, data.n_classes),
        ).to(device)  # fmt: skip
        _train_head(head, data, batch_size=batch_size, epochs=epochs, lr=lr, weight_decay=weight_decay)
    head.eval()
    blocks = (data.test[start:stop] for start, stop in spans(len(data.test), BLOCK_ROWS))
    predicted = torch.cat([head(block).argmax(dim=1) for block in blocks])
    return data.result("mlp", predicted)


@exact
def knn_probe(
    train: Array, train_labels: Integers, test: Array, test_labels: Integers, *, k: int = 20
) -> ProbeResult:
    """Judge a representation by the vote of the k nearest train rows, each weighing exp(cosine / 0.07).

    Parameters
    ----------
    train, train_labels, test, test_labels
        As in :func:`linear_probe`; cosines are taken after the scaling.
    k : int
        1 <= k <= n_train.

    Returns
    -------
    ProbeResult

    Raises
    ------
    ShapeError, NonFiniteError
    """
    data = prepare(train, train_labels, test, test_labels)
    if not 1 <= k <= len(data.train):
        raise ShapeError(f"k is {k} with {len(data.train)} train rows; expected 1 <= k <= {len(data.train)}")
    train_unit = F.normalize(data.train)
    predicted = []
    for start, stop in spans(len(data.test), 1024):
        block = F.normalize(data.test[start:stop])
        similarity, row = (block @ train_unit.T).topk(k, dim=1)  # (rows, k)
        votes = torch.zeros(len(block), data.n_classes, device=block.device)
        votes.scatter_add_(1, data.train_class[row], ((similarity - 1) / 0.07).exp())
        predicted.append(votes.argmax(dim=1))
    return data.result("knn", torch.cat(predicted))


_Path = Callable[[torch.Tensor, torch.Tensor, int, Sequence[float], Spectrum], list[Classifier]]


def _chosen_probe(
    head: str, path: _Path, data: ProbeData, strengths: Sequence[float], seed: int
) -> ProbeResult:
    """Choose the strength on the held-out tenth, fit all of train, predict test."""
    ordered = sorted({float(strength) for strength in strengths}, reverse=True)
    if not ordered or not all(0 < strength < math.inf for strength in ordered):
        raise ShapeError(f"strengths are {tuple(strengths)}; expected one or more positive numbers")
    basis = spectrum(data.train)
    held_out: dict[float, float] = {}
    if len(ordered) > 1:
        fitted, checked = held_out_rows(data.train_class, seed)
        rows, classes = data.train[fitted], data.train_class[fitted]
        for strength, classifier in zip(
            ordered, path(rows, classes, data.n_classes, ordered, basis), strict=True
        ):
            right = classifier.predict(data.train[checked]) == data.train_class[checked]
            held_out[strength] = float(right.double().mean())
    best = max(
        ordered, key=lambda strength: held_out.get(strength, 0.0)
    )  # the first, so the larger, of equals
    (final,) = path(data.train, data.train_class, data.n_classes, [best], basis)
    return data.result(head, final.predict(data.test),
                       strength=best, held_out=held_out, converged=final.converged)  # fmt: skip


def _logistic_path(
    x: torch.Tensor, classes: torch.Tensor, n_classes: int, strengths: Sequence[float], basis: Spectrum
) -> list[Classifier]:
    """Fit from the strongest to the weakest, each from the one before."""
    fits: list[Classifier] = []
    for strength in strengths:
        start = fits[-1] if fits else None
        fits.append(fit_logistic(x, classes, n_classes, strength=strength, basis=basis, start=start))
    return fits


def _ridge_path(
    x: torch.Tensor, classes: torch.Tensor, n_classes: int, strengths: Sequence[float], basis: Spectrum
) -> list[Classifier]:
    """Solve every strength from one eigendecomposition, that of the fitted rows themselves."""
    shift = x.mean(dim=0)
    own = spectrum(x - shift)
    share = torch.bincount(classes, minlength=n_classes).double().cpu() / len(classes)  # (n_classes,)
    moment = torch.zeros(x.shape[1], n_classes, dtype=torch.float64)
    for start, stop in spans(len(x), BLOCK_ROWS):
        wanted = F.one_hot(classes[start:stop], n_classes).float()  # (rows, n_classes)
        moment += ((x[start:stop] - shift).T @ wanted).cpu()
    rotated = own.vectors.T @ (moment / len(classes))
    weights = [own.vectors @ (rotated / (own.values + strength)[:, None]) for strength in strengths]
    return [Classifier(weight, share - shift.cpu().double() @ weight) for weight in weights]


def _check_head(*, dropout: float, lr: float, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ShapeError(f"{name} is {value}; expected at least 1")
    if not 0 <= dropout < 1:
        raise ShapeError(f"dropout is {dropout}; expected 0 <= dropout < 1")
    if not 0 < lr < math.inf:
        raise ShapeError(f"lr is {lr}; expected a positive number")


def _train_head(
    head: nn.Module, data: ProbeData, *, batch_size: int, epochs: int, lr: float, weight_decay: float
) -> None:
    n = len(data.train)
    steps = epochs * math.ceil(n / batch_size)
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    for _ in range(epochs):
        order = torch.randperm(n).to(data.train.device)
        for start, stop in spans(n, batch_size):
            rows = order[start:stop]
            loss = F.cross_entropy(head(data.train[rows]), data.train_class[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
            optimiser.step()
            schedule.step()
