"""Schedules of the two directions: signals against loops, their average, the weights, runs with them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from align_cache.adapters.checkpoint import load_adapters
from align_cache.adapters.pair import build_pair, unit
from align_cache.adapters.stacking import stack
from align_cache.config import dotted
from align_cache.errors import ConfigError, ShapeError
from align_cache.losses import Balance, Directions, Objective, Schedule, infonce, row_signal
from align_cache.losses.balance import LEAST_SIGNAL
from align_cache.pairing.embedding import Batch
from align_cache.reporting import style
from align_cache.reporting.curves import weight_curves
from align_cache.reporting.page import render
from align_cache.results import Run
from align_cache.run_records import read_run
from align_cache.settings import LossSettings, fit_config
from align_cache.training.fitting import fit, resume_fit
from align_cache.training.member import Member
from align_cache.training.trainer import Trainer
from tests.unit.stored import paired_sets
from tests.unit.test_fit import epochs, toy, without_durations
from tests.unit.test_training_together import together

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def rows(n: int, dim: int, seed: int = 0) -> Tensor:
    return unit(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)))


def plain_signal(schedule: str, cosines: np.ndarray, temperature: float) -> float:
    """One row at a time, one candidate at a time."""
    n, total = len(cosines), 0.0
    for i in range(n):
        row = [float(x) for x in cosines[i]]
        if schedule == "variance":
            mean = sum(row) / n
            total += sum((x - mean) ** 2 for x in row) / n
        elif schedule == "entropy":
            z = sum(math.exp(x / temperature) for x in row)
            shares = [math.exp(x / temperature) / z for x in row]
            total -= sum(p * math.log(p) for p in shares) / math.log(n)
        else:
            total += row[i] - max(x for j, x in enumerate(row) if j != i)
    return total / n


def plain_weights(
    schedule: Schedule, signals: list[tuple[float, float]], decay: float
) -> tuple[float, float]:
    """The weights after a step for each pair of signals."""
    average = signals[0]
    for own in signals[1:]:
        average = tuple(decay * a + (1 - decay) * v for a, v in zip(average, own, strict=True))  # type: ignore[assignment]
    first, second = (max(v, LEAST_SIGNAL[schedule]) for v in average)
    return 2 * first / (first + second), 2 * second / (first + second)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n", [2, 3, 17])
def test_a_signal_is_its_written_out_formula_by_row_and_by_column(schedule: Schedule, n: int) -> None:
    cosines = rows(n, 5) @ rows(n, 5, 1).T
    for matrix in (cosines, cosines.T):
        expected = plain_signal(schedule, matrix.double().numpy(), 0.07)
        assert row_signal(schedule, matrix, 0.07).item() == pytest.approx(expected, abs=1e-6)


def test_signals_of_hand_worked_matrices() -> None:
    told_apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert row_signal("variance", told_apart, 1.0).item() == 0.25
    assert row_signal("spread", told_apart, 1.0).item() == 1.0
    assert row_signal("entropy", told_apart, 1e-3).item() == 0.0
    alike = torch.full((4, 4), 0.3)
    assert row_signal("variance", alike, 1.0).item() == pytest.approx(0.0, abs=1e-12)
    assert row_signal("spread", alike, 1.0).item() == 0.0
    assert row_signal("entropy", alike, 0.07).item() == pytest.approx(1.0, abs=1e-6)


def test_rows_and_columns_can_tell_apart_differently_where_the_whole_matrix_cannot() -> None:
    """Columns that differ in level: every row varies, no column does; the matrix is one set of numbers."""
    cosines = torch.tensor([[0.0, 0.4, 0.8]]).expand(3, 3)
    assert row_signal("variance", cosines, 1.0).item() == pytest.approx(0.32 / 3)
    assert row_signal("variance", cosines.T, 1.0).item() == 0.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_single_pair_has_nothing_to_be_told_apart_from(schedule: Schedule) -> None:
    with pytest.raises(ShapeError, match="batch of 1 pair"):
        row_signal(schedule, torch.ones(3, 1, 1), 0.1)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_weights_of_every_step_follow_the_average_of_all_signals_so_far(
    schedule: Schedule, decay: float
) -> None:
    """Steps of two micro-batches: their mean is the step's signal, and the first is taken as it is."""
    balance, signals = Balance(schedule, decay=decay), []
    for step in range(5):
        image, text = rows(14, 5, step).view(2, 7, 5), rows(14, 5, 100 + step).view(2, 7, 5)
        image = unit(0.3 * image + 1.5 * text)  # near enough for spreads above the least
        found = balance(image, text, temperature=0.1)
        cosines = (image @ text.mT).double().numpy()
        of_step = [[plain_signal(schedule, c, 0.1), plain_signal(schedule, c.T, 0.1)] for c in cosines]
        signals.append(tuple(np.mean(of_step, axis=0)))
        expected = plain_weights(schedule, signals, decay)
        assert [way.item() for way in found] == pytest.approx(expected, abs=1e-5)
        assert sum(way.item() for way in found) == pytest.approx(2.0, abs=1e-6)


def test_spreads_below_the_least_weigh_alike() -> None:
    image, text = rows(9, 4), rows(9, 4, 1)
    weights = Balance("spread", decay=0.9)(image[None], text[None], temperature=0.1)
    assert row_signal("spread", image @ text.T, 0.1).item() < LEAST_SIGNAL["spread"]
    assert [way.item() for way in weights] == [1.0, 1.0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_embeddings_that_are_all_the_same_weigh_alike(schedule: Schedule) -> None:
    same = rows(1, 6).expand(1, 8, 6)
    weights = Balance(schedule, decay=0.5)(same, same, temperature=0.1)
    assert [way.item() for way in weights] == pytest.approx([1.0, 1.0], abs=1e-6)


def test_a_symmetric_batch_weighs_both_directions_exactly_alike() -> None:
    """Dyadic rows, whose products are exact: rows and columns are the same numbers, and so are their sums."""
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, 1], [1, 1, -1, -1], [-1, 1, -1, 1], [1, 1, 1, -1.0]])
    same = (signs / 2)[None]
    weights = Balance("variance", decay=0.9)(same, same, temperature=0.1)
    assert [way.item() for way in weights] == [1.0, 1.0]


def test_the_weights_scale_the_gradient_of_each_direction_and_carry_none() -> None:
    image, text = rows(7, 5).requires_grad_(), rows(7, 5, 1)
    seen = Balance("variance", decay=0.0)(image[None], text[None], temperature=0.2)
    assert not any(way.requires_grad for way in seen)
    weights = Directions(torch.tensor(0.6), torch.tensor(1.4))
    ways = infonce(image, text, temperature=0.2, label_smoothing=0.1)
    slopes = [torch.autograd.grad(way, image, retain_graph=True)[0] for way in ways]
    parts = Objective(label_smoothing=0.1)(image, text, None, temperature=0.2, weights=weights)
    (found,) = torch.autograd.grad(parts.total, image)
    expected = sum(w * s for w, s in zip(weights, slopes, strict=True)) / 2
    torch.testing.assert_close(found, expected)
    assert parts.total.item() == pytest.approx(0.3 * ways[0].item() + 0.7 * ways[1].item(), rel=1e-6)


def test_weights_of_one_are_no_weights() -> None:
    image, text = rows(7, 5), rows(7, 5, 1)
    one = Directions(torch.ones(()), torch.ones(()))
    with_ones = Objective()(image, text, None, temperature=0.2, weights=one)
    assert torch.equal(with_ones.total, Objective()(image, text, None, temperature=0.2).total)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_reads_no_value_back_to_the_host(schedule: Schedule) -> None:
    """On the meta device there are shapes and no values; and the state stays where it was, to be recorded."""
    balance = Balance(schedule, decay=0.9).to("meta")
    places = [id(buffer) for buffer in balance.buffers()]
    embeddings = torch.empty(2, 7, 5, device="meta")
    weights = balance(embeddings, embeddings, temperature=torch.empty(1, device="meta"))
    assert [way.shape for way in weights] == [torch.Size(()), torch.Size(())]
    assert [id(buffer) for buffer in balance.buffers()] == places


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_stacked_balances_are_each_as_if_alone_and_keep_their_state_when_one_leaves(
    schedule: Schedule,
) -> None:
    decays, temperatures = (0.0, 0.5, 0.9), torch.tensor([[0.05], [0.2], [1.0]])
    alone, stacked = ([Balance(schedule, decay=decay) for decay in decays] for _ in range(2))
    kept = [0, 1, 2]
    for step in range(6):
        if step in (0, 3):
            kept = [0, 1, 2] if step == 0 else [0, 2]
            group = stack([stacked[run] for run in kept], generators=[])
        image, text = (rows(3 * 2 * 7, 5, 10 * step + side).view(3, 2, 7, 5) for side in (0, 1))
        image = unit(image + 2 * text)
        found = group(image[kept], text[kept], temperature=temperatures[kept])
        for place, run in enumerate(kept):
            expected = alone[run](image[run], text[run], temperature=temperatures[run])
            for way, own in zip(found, expected, strict=True):
                torch.testing.assert_close(way[place], own)
            torch.testing.assert_close(stacked[run].average, alone[run].average)


# --- whole runs -------------------------------------------------------------------------------------------


WELL_TRAINED: dict[str, Any] = {"optim__epochs": 6, "optim__lr": 0.03, "data__batch_size": 4}
"""Until pairs are nearer than their hardest negatives: before, the spread weighs alike."""


def weights_of(run: Run, kind: str = "step") -> list[tuple[float, float]]:
    found = [r if kind == "step" else r.get("train", {}) for r in run.records() if r["kind"] == kind]
    return [(r["weight_image_to_text"], r["weight_text_to_image"]) for r in found if r]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_logs_its_weights_by_step_and_by_epoch_and_trains_by_them(
    cache_dir: Path, schedule: Schedule
) -> None:
    paired_sets(cache_dir)
    changes: dict[str, Any] = {"precision": "fp32", "loss__schedule_ema": 0.5, **WELL_TRAINED}
    fixed, run = (
        fit(toy(loss__schedule=name, **changes), cache_dir=cache_dir) for name in ("fixed", schedule)
    )
    by_step = weights_of(run)
    assert len(by_step) == 6 * run.info()["steps_per_epoch"]
    assert any(abs(first - 1) > 1e-3 for first, _ in by_step)
    assert all(first + second == pytest.approx(2) for first, second in by_step)
    per_epoch = np.array(by_step).reshape(6, -1, 2).mean(1)
    np.testing.assert_allclose(weights_of(run, "epoch"), per_epoch, rtol=1e-12)
    for records in (fixed.records(), [r["val"] for r in epochs(run)]):
        assert not any("weight" in key for record in records for key in record)
    weights, others = (load_adapters(r.checkpoints, "last")[0] for r in (run, fixed))
    assert not torch.equal(weights["image.layers.0.weight"], others["image.layers.0.weight"])


def test_the_validation_loss_weighs_both_alike_whatever_the_schedule(cache_dir: Path) -> None:
    """Before training the adapters are the same, and so are the losses."""
    paired_sets(cache_dir)
    first = {
        schedule: epochs(fit(toy(loss__schedule=schedule, optim__epochs=2), cache_dir=cache_dir))[0]["val"]
        for schedule in ("fixed", *SCHEDULES)
    }
    assert all(loss == first["fixed"] for loss in first.values())


@dataclass
class SameOnBothSides:
    """Inputs whose captions are their images."""

    rows: Tensor

    def batches(self, steps: Iterable[Any], *, with_reference: bool) -> Iterator[Batch]:
        assert not with_reference
        for _ in steps:
            yield Batch(self.rows, self.rows, None, batch_size=6)


def test_with_both_sides_alike_variance_trains_as_fixed_does() -> None:
    """Adapters with the same weights on the same features: similarities are symmetric, and stay so."""
    trained = []
    for schedule in ("fixed", "variance"):
        torch.manual_seed(0)
        pair = build_pair("mlp", image_dim=5, text_dim=5, embed_dim=4, temperature=0.2, hidden_dims=(8,))
        pair.text.load_state_dict(pair.image.state_dict())
        member = Member(
            pair=pair,
            objective=Objective(label_smoothing=0.1),
            optimizer=torch.optim.AdamW([{"params": [*pair.parameters()], "lr_factor": 1.0}]),
            learning_rates=[0.01] * 5,
            clip_grad_norm=None,
            seed=0,
            balance=Balance("variance", decay=0.9) if schedule == "variance" else None,
        )
        inputs: Any = SameOnBothSides(rows(12, 5))
        trainer = Trainer([member], inputs, device=torch.device("cpu"), bf16=False)
        (losses,) = trainer.epoch([()] * 5, epoch=1, first_step=0)
        trained.append((pair.state_dict(), losses))
    (fixed, without), (variance, losses) = trained
    assert without.weights is None
    assert losses.weights is not None
    for way in losses.weights:
        torch.testing.assert_close(way, torch.ones_like(way), rtol=0, atol=1e-6)
    torch.testing.assert_close(variance, fixed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_resumed_run_goes_on_with_the_average_of_its_signals(cache_dir: Path, schedule: Schedule) -> None:
    paired_sets(cache_dir)
    config = toy(loss__schedule=schedule, loss__schedule_ema=0.95, optim__ema_decay=0.5)

    def interrupt(record: dict[str, Any]) -> None:
        if record["kind"] == "epoch" and record["epoch"] == 3:
            raise KeyboardInterrupt

    whole = fit(config, cache_dir=cache_dir)
    with pytest.raises(KeyboardInterrupt):
        fit(config, cache_dir=cache_dir, on_record=interrupt)
    resumed = resume_fit("latest", cache_dir=cache_dir)
    assert without_durations(resumed.records()) == without_durations(whole.records())
    weights, expected = (load_adapters(run.checkpoints, "last")[0] for run in (resumed, whole))
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert not any("balance" in name or "average" in name for name in weights), "adapters hold adapters"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_runs_with_other_decays_trained_together_are_the_runs_alone(
    cache_dir: Path, schedule: Schedule
) -> None:
    """One of them breaks, and the others go on in a group of their own."""
    paired_sets(cache_dir)
    varied: list[dict[str, Any]] = [
        {"seed": 0, "loss__schedule_ema": 0.0},
        {"seed": 1, "optim__lr": 1e30, "optim__clip_grad_norm": "none"},
        {"seed": 2, "loss__schedule_ema": 0.99, "loss__temperature": 0.3},
    ]
    shared: dict[str, Any] = {"precision": "fp32", "loss__schedule": schedule, **WELL_TRAINED}
    configs = [toy(**{**shared, **own}) for own in varied]
    failures: list[Exception] = []
    runs = together(configs, cache_dir, failures)
    assert len(failures) == 1
    for run, config in ((runs[0], configs[0]), (runs[2], configs[2])):
        alone = fit(config, cache_dir=cache_dir)
        np.testing.assert_allclose(weights_of(run), weights_of(alone), atol=1e-3)
        weights, expected = (load_adapters(r.checkpoints, "last")[0] for r in (run, alone))
        for name, tensor in expected.items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=2e-4, msg=name)


def test_a_single_direction_or_a_single_sum_has_no_schedule() -> None:
    for other in ("loss.direction=text_to_image", "loss.contrastive=siglip"):
        with pytest.raises(ConfigError, match="schedule = entropy weighs"):
            fit_config(assignments=("loss.schedule=entropy", other))
        assert dotted(fit_config(assignments=(other,)).model_dump())["loss.schedule"] == "fixed"


def test_settings_and_losses_name_the_same_schedules() -> None:
    assert get_args(LossSettings.model_fields["schedule"].annotation) == ("fixed", *SCHEDULES)
    assert set(LEAST_SIGNAL) == set(SCHEDULES)


def test_the_report_draws_the_weights_where_a_schedule_is_on(cache_dir: Path, tmp_path: Path) -> None:
    paired_sets(cache_dir)
    for schedule in ("fixed", "variance"):
        folder = fit(toy(loss__schedule=schedule), cache_dir=cache_dir).folder
        run = read_run(folder)
        figure, pictures = weight_curves(run), []
        if figure is not None:
            drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]  # type: ignore[arg-type]
            for first_or_second in zip(*weights_of(Run(folder), "epoch"), strict=True):
                assert list(first_or_second) in drawn
            pictures = [style.save(figure, tmp_path / "weights.png")]
        assert (figure is None) == (schedule == "fixed")
        page = render(run, None, pictures)
        assert ("Weights of the two directions" in page) == (schedule == "variance")
