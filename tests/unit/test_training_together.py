"""Several runs trained in one pass, and what changes a run: mixing, curriculum, averages, stopping."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align_cache.adapters.checkpoint import load_adapters
from align_cache.adapters.run_adapters import load_pair
from align_cache.errors import AlignCacheError
from align_cache.pairing.batches import Batches, StepRows
from align_cache.pairing.embedding import _mixed
from align_cache.reporting import draw_figures
from align_cache.results import Run
from align_cache.settings import FitConfig, fit_config
from align_cache.sweeps.records import scores_of
from align_cache.training.assemble import Opened, assemble
from align_cache.training.fitting import fit, resume_fit, start, train
from align_cache.training.session import Session
from tests.unit.stored import paired_sets
from tests.unit.test_fit import epochs, toy, without_durations


def together(configs: list[FitConfig], cache_dir: Path, failures: list[Exception] | None = None) -> list[Run]:
    opened = Opened(cache_dir, whole=True)
    sessions = [start(config, opened) for config in configs]
    kept = failures if failures is not None else []

    def on_end(session: Session, error: Exception | None) -> None:
        if error is not None:
            kept.append(error)

    train(sessions, on_end=on_end)
    return [session.run for session in sessions]


VARIED: list[dict[str, Any]] = [
    {"seed": 0},
    {"seed": 1, "optim__lr": 3e-3, "optim__weight_decay": 0.2},
    {"seed": 2, "loss__temperature": 0.3, "loss__label_smoothing": 0.0, "adapter__dropout": 0.0},
    {"seed": 3, "loss__variance_weight": 2.0, "adapter__dropout": 0.5, "optim__clip_grad_norm": "none"},
]


@pytest.mark.parametrize("shape", [
    {},
    {"loss__learn_temperature": True, "data__mixup": 0.4},
    {"adapter__type": "linear", "loss__distribution_matching": False},
    {"optim__ema_decay": 0.9, "data__rows": "mmap"},
    {"loss__contrastive": "siglip", "loss__structure_weight": 0.5, "adapter__input_norm": "standardize"},
    {"adapter__type": "residual", "adapter__norm": "rms", "loss__contrastive": "hard_negative"},
    {"adapter__type": "attention", "adapter__attention_tokens": 2, "adapter__attention_width": 8},
    {"data__curriculum_epochs": 2, "data__captions_per_image": 2},
])  # fmt: skip
def test_a_run_among_others_is_the_run_alone(cache_dir: Path, shape: dict[str, Any]) -> None:
    """Per-run rate, decay, temperature, smoothing, weight, dropout, clipping and seed: the same weights."""
    paired_sets(cache_dir, captions=2)
    configs = [toy(precision="fp32", **shape, **own) for own in VARIED]
    for run, config in zip(together(configs, cache_dir), configs, strict=True):
        alone = fit(config, cache_dir=cache_dir)
        for which in ("best", "last"):
            weights, epoch = load_adapters(run.checkpoints, which)
            expected, expected_epoch = load_adapters(alone.checkpoints, which)
            assert epoch == expected_epoch
            for name, tensor in expected.items():
                if name.endswith("queries_keys_values.bias"):
                    continue  # of the keys nothing depends on it: AdamW scales mere rounding to its rate
                torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=2e-4, msg=name)
        losses, wanted = ([e["val"]["loss"] for e in epochs(r)] for r in (run, alone))
        assert losses == pytest.approx(wanted, rel=1e-4)


def test_a_run_that_breaks_is_marked_and_the_others_go_on_as_if_alone(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    configs = [toy(precision="fp32", seed=seed) for seed in (0, 1, 2)]
    configs[1] = toy(precision="fp32", seed=1, optim__lr=1e30, optim__clip_grad_norm="none")
    failures: list[Exception] = []
    runs = together(configs, cache_dir, failures)
    assert [run.info()["status"] for run in runs] == ["finished", "failed", "finished"]
    assert len(failures) == 1
    assert isinstance(failures[0], AlignCacheError)
    alone = fit(configs[2], cache_dir=cache_dir)
    weights, expected = (load_adapters(run.checkpoints, "last")[0] for run in (runs[2], alone))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=2e-4, msg=name)


def test_early_stopping_ends_a_run_after_its_patience_and_not_the_others(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    changes: dict[str, Any] = {
        "precision": "fp32",
        "optim__epochs": 12,
        "optim__lr": 0.3,
        "optim__min_lr": 0.1,
    }
    stopping, whole = together([toy(optim__early_stopping=2, **changes), toy(**changes)], cache_dir)
    seen = epochs(stopping)
    losses = [e["val"]["loss"] for e in seen[1:]]
    best = int(np.argmin(losses)) + 1
    assert seen[-1]["epoch"] == best + 2 < 12
    assert stopping.info()["status"] == "finished"
    assert stopping.info()["best_epoch"] == best
    assert load_adapters(stopping.checkpoints, "best")[1] == best
    assert load_adapters(stopping.checkpoints, "last")[1] == best + 2
    assert epochs(whole)[-1]["epoch"] == 12


def test_checkpoints_at_the_end_only_keep_the_best_epoch_all_the_same(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    changes: dict[str, Any] = {"optim__epochs": 8, "optim__lr": 0.02, "optim__min_lr": 0.02}
    changes |= {"adapter__dropout": 0.0, "precision": "fp32"}
    each, rare = (fit(toy(log__checkpoint_frequency=n, **changes), cache_dir=cache_dir) for n in (1, 0))
    for which in ("best", "last"):
        one, other = (load_adapters(run.checkpoints, which) for run in (each, rare))
        assert one[1] == other[1]
        assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert load_adapters(rare.checkpoints, "best")[1] < 8  # the case that this is about
    assert len(list(rare.checkpoints.glob("adapters-*"))) == 2


def test_the_average_is_what_is_measured_and_saved_and_a_resumed_run_goes_on_with_both(
    cache_dir: Path,
) -> None:
    paired_sets(cache_dir)
    plain = fit(toy(), cache_dir=cache_dir)
    whole = fit(toy(optim__ema_decay=0.8), cache_dir=cache_dir)
    assert not torch.equal(*(load_adapters(r.checkpoints, "last")[0]["image.layers.0.weight"]
                             for r in (plain, whole)))  # fmt: skip
    assert [e["train"] for e in epochs(plain)[1:]] == [e["train"] for e in epochs(whole)[1:]]

    def interrupt(record: dict[str, Any]) -> None:
        if record["kind"] == "epoch" and record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(toy(optim__ema_decay=0.8), cache_dir=cache_dir, on_record=interrupt)
    resumed = resume_fit("latest", cache_dir=cache_dir)
    assert without_durations(resumed.records()) == without_durations(whole.records())


def test_mixing_is_the_written_out_formula_within_each_micro_batch() -> None:
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    share = torch.tensor([1.0, 0.5, 0.0, 0.25, 1.0, 0.75])
    mixed = _mixed(rows, share, 3)
    for i in range(6):
        partner = i // 3 * 3 + (i + 1) % 3
        expected = share[i] * rows[i] + (1 - share[i]) * rows[partner]
        torch.testing.assert_close(mixed[i], expected / expected.norm())
    both = torch.stack([rows, rows.flip(0)])
    torch.testing.assert_close(_mixed(both, torch.stack([share, share]), 3)[0], mixed)


def test_a_curriculum_makes_the_same_number_of_batches_of_fewer_images(cache_dir: Path) -> None:
    paired_sets(cache_dir, captions=2)
    parts = assemble(toy(data__captions_per_image=2), Opened(cache_dir))
    pairs, size = parts.splits.train, parts.batches.batch_size
    assert isinstance(parts.batches, Batches)
    pool = np.arange(0, pairs.n_images, 2)[: size + 3]
    steps: list[StepRows] = list(parts.batches.epoch(2, pool=pool))
    whole = list(parts.batches.epoch(2))
    assert [len(s.image_rows) for s in steps] == [len(s.image_rows) for s in whole]
    allowed = set(pairs.image_rows[pool].tolist())
    for step in steps:
        for first in range(0, len(step.image_rows), size):
            batch = step.image_rows[first : first + size].tolist()
            assert len(set(batch)) == size
            assert set(batch) <= allowed


def test_the_curriculum_starts_with_the_most_alike_and_grows_to_all(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    config = toy(data__curriculum_epochs=4, data__curriculum_start=0.5, data__batch_size=4)
    session = start(config, Opened(cache_dir))
    n = session.parts.splits.train.n_images
    sizes = [None if (pool := session.pool(epoch)) is None else len(pool) for epoch in range(1, 8)]
    assert sizes == [None, *(round(n * share) for share in (0.5, 0.625, 0.75, 0.875)), None, None]
    pool = session.pool(2)
    assert pool is not None
    from align_cache.pairing.embedding import embed_pairs

    pairs = session.parts.splits.train
    embedded = embed_pairs(session.parts.member.pair, session.parts.inputs, pairs)
    alike = (embedded.image * embedded.captions[pairs.caption_starts[:-1]]).sum(1)
    left_out = np.setdiff1d(np.arange(n), pool)
    assert alike[pool].min() >= alike[left_out].max()


@pytest.mark.parametrize("select_by", ["val_loss", "mean_recall"])
def test_measuring_seldom_changes_no_weight_and_the_best_epoch_is_measured_all_the_same(
    cache_dir: Path, select_by: str
) -> None:
    paired_sets(cache_dir)
    changes: dict[str, Any] = {"optim__lr": 0.02, "optim__min_lr": 0.02, "evaluation__select_by": select_by}
    often, seldom = (
        fit(toy(evaluation__frequency=n, optim__epochs=8, precision="fp32", **changes), cache_dir=cache_dir)
        for n in (1, 0)
    )
    best = often.info()["best_epoch"]
    assert seldom.info()["best_epoch"] == best
    assert not any("alignment" in record for record in epochs(seldom))
    assert all(("retrieval" in record) == (select_by == "mean_recall") for record in epochs(seldom))
    (measured,) = (record for record in seldom.records() if record["kind"] == "best")
    wanted = next(record for record in epochs(often) if record["epoch"] == best)
    for key in ("alignment", "retrieval", "similarity", "distribution", "hypotheses", "n", "k", "chance"):
        assert measured[key] == wanted[key]
    cosines = [[record["similarity"] for record in epochs(run)] for run in (seldom, often)]
    assert cosines[0] == cosines[1]  # in every epoch, measured or not
    assert scores_of(seldom) == scores_of(often)
    report = draw_figures(seldom.folder)
    assert report


def test_a_learned_temperature_and_bias_move_at_a_rate_of_their_own(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    siglip: dict[str, Any] = {
        "loss__contrastive": "siglip",
        "loss__learn_temperature": True,
        "optim__lr": 1e-3,
    }
    moved = {}
    for factor in (1.0, 100.0):
        run = fit(toy(optim__scalar_lr_factor=factor, **siglip), cache_dir=cache_dir)
        weights, _ = load_adapters(run.checkpoints, "last")
        began = fit_config(file=run.folder / "config.toml").siglip_bias
        moved[factor] = abs(float(weights["bias"]) - began)
    assert 0 < moved[1.0] < moved[100.0] / 20
    pair, _ = load_pair(run)
    assert pair.bias is not None
    assert float(pair.bias.detach()) == float(load_adapters(run.checkpoints, "best")[0]["bias"])


@pytest.mark.parametrize("frequency", [0, 1])
@pytest.mark.parametrize("changes", [{}, {"optim__early_stopping": 1, "optim__lr": 3.0, "optim__epochs": 12}])
def test_a_run_that_was_stopped_after_its_last_checkpoint_is_finished_when_resumed(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, frequency: int, changes: dict[str, Any]
) -> None:
    """Between saving the last epoch and calling the run finished there is a moment to be killed in."""
    paired_sets(cache_dir)
    config = toy(log__checkpoint_frequency=frequency, evaluation__frequency=0, **changes)
    whole = fit(config, cache_dir=cache_dir)
    with monkeypatch.context() as patched:
        patched.setattr(Session, "finish", lambda session: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(config, cache_dir=cache_dir)
    resumed = resume_fit("latest", cache_dir=cache_dir)
    assert resumed.info()["status"] == "finished"
    assert without_durations(resumed.records()) == without_durations(whole.records())
    for which in ("best", "last"):
        one, other = (load_adapters(run.checkpoints, which) for run in (resumed, whole))
        assert one[1] == other[1]
        assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
