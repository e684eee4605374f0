"""Sweeps: what is tried, that each trial is the run alone, resuming, skipping, failing, the leaderboard."""

import json
import math
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align_cache import results
from align_cache.adapters.checkpoint import load_adapters
from align_cache.config import resolve, set_layer
from align_cache.errors import BusyError, CacheError, ConfigError
from align_cache.lock import holding
from align_cache.reporting.leaderboard import leaderboard_table
from align_cache.results import create_run, find_run, list_runs
from align_cache.settings import SweepConfig, fit_config, sweep_config
from align_cache.sweeps import workers as sweep_workers
from align_cache.sweeps.records import TrialRecord, ranked, trials_of
from align_cache.sweeps.search_space import Choice, Interval, grid_points, random_points, read_space
from align_cache.sweeps.sweeping import Standing, sweep
from align_cache.sweeps.trials import plan
from align_cache.training.fitting import fit
from align_cache.training.run_shape import bytes_of, group_size
from tests.unit.stored import paired_sets
from tests.unit.test_fit import TOY

BASE = {**TOY, "precision": "fp32", "optim.epochs": 2}


def toy_sweep(**given: Any) -> SweepConfig:
    return SweepConfig(**{"base": BASE, "together": 3, **given})


GRID = {"loss.temperature": [0.1, 0.3], "seed": [0, 1]}


def test_a_grid_is_every_combination_and_nested_tables_are_dotted_settings() -> None:
    points = grid_points({"loss": {"temperature": [0.1, 0.2]}, "seed": [0, 1, 2]})
    assert len(points) == 6
    assert points[1] == {"loss.temperature": 0.1, "seed": 1}
    assert grid_points({}) == [{}]


@pytest.mark.parametrize("grid", [{"seed": 3}, {"seed": []}, {"adapter": {"type": "mlp"}}])
def test_a_grid_without_lists_is_refused_by_name(grid: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected a list"):
        grid_points(grid)


def test_random_points_are_within_their_bounds_even_where_they_say_and_nested() -> None:
    space = read_space(
        {
            "optim.lr": {"low": 1e-5, "high": 1e-2, "log": True},
            "adapter": {"dropout": {"low": 0.0, "high": 0.5}},
            "optim.epochs": {"low": 2, "high": 4},
            "adapter.type": ["linear", "mlp"],
        }
    )
    points = random_points(space, 3000, seed=1)
    assert random_points(space, 5, seed=1) == points[:5]
    assert random_points(space, 5, seed=2) != points[:5]
    rates = np.log10([point["optim.lr"] for point in points])
    assert -5 <= rates.min() < rates.max() <= -2
    assert np.histogram(rates, bins=3)[0] == pytest.approx(1000, abs=120)
    assert np.histogram([p["adapter.dropout"] for p in points], bins=4)[0] == pytest.approx(750, abs=100)
    for key, values in (("optim.epochs", (2, 3, 4)), ("adapter.type", ("linear", "mlp"))):
        counts = [sum(point[key] == value for point in points) for value in values]
        assert sum(counts) == 3000
        assert np.array(counts) == pytest.approx(3000 / len(values), abs=130)


@pytest.mark.parametrize(
    "domain",
    [
        *(0.1, [], {"low": 1}, {"low": 2, "high": 1}, {"low": "a", "high": "b"}),
        *({"low": 0.0, "high": 1.0, "log": True}, {"low": 0, "high": 1, "step": 1}),
    ],
)
def test_a_domain_that_cannot_be_drawn_from_is_refused_by_name(domain: Any) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        read_space({"optim.lr": domain})


def test_domains_draw_what_they_hold() -> None:
    generator = np.random.default_rng(0)
    assert Choice((None,)).draw(generator) is None
    assert {Interval(1, 100, log=True).draw(generator) for _ in range(500)} <= set(range(1, 101))


def test_a_file_of_a_sweep_is_read_with_its_shared_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[sweep]\nrank_by = "val_loss"\n[grid]\nseed = [0, 1]\n[optim]\nlr = 1e-3\n')
    config = sweep_config(file, assignments=("optim.epochs=3",), flags={"jobs": 1, "name": None})
    assert (config.name, config.rank_by, config.jobs) == ("mine", "val_loss", 1)
    assert config.base == {"optim": {"lr": 1e-3, "epochs": 3}}
    assert config.grid == {"seed": [0, 1]}


@pytest.mark.parametrize(
    "text",
    [
        *("[sweep]\nrank = 1\n", "grid = 3\n", "sweep = 3\n", "[sweep]\ntrials = 3\n"),
        '[random]\nseed = [1]\n[grid]\nseed=[1]\n[sweep]\ntrials=1\nsampler="tpe"\n',
    ],
)
def test_a_sweep_that_cannot_be_meant_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        sweep_config(file)


def test_a_setting_that_cannot_be_used_is_named_with_its_point_before_any_run(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    with pytest.raises(ConfigError, match=r"loss\.temperature = -1.*loss\.temperature"):
        sweep(toy_sweep(grid={"loss.temperature": [0.1, -1]}), cache_dir=cache_dir)
    with pytest.raises(ConfigError, match=r"did you mean optim\.lr"):
        sweep(toy_sweep(grid={"optim.learning": [0.1]}), cache_dir=cache_dir)
    with pytest.raises(CacheError):
        sweep(toy_sweep(grid={"data.image_encoder": ["nothing"]}), cache_dir=cache_dir)
    assert list_runs(cache_dir) == []


def test_every_trial_is_the_run_alone_and_a_second_call_trains_none(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    seen: list[Standing] = []
    folder = sweep(toy_sweep(grid=GRID), cache_dir=cache_dir, on_progress=seen.append)
    trials = trials_of(folder)
    assert [len(standing.ended) for standing in seen] == [0, 1, 2, 3, 4]
    assert {standing.n_trials for standing in seen} == {4}
    assert [trial.status for trial in trials] == ["finished"] * 4
    for trial in trials:
        assert trial.run is not None
        run = find_run(trial.run, cache_dir=cache_dir)
        assert run.info()["status"] == "finished"
        own = fit_config(file=run.folder / "config.toml")
        assert resolve(type(own), [set_layer([f"{k}={v}" for k, v in trial.values.items()])]).seed == own.seed
        alone = fit(own, cache_dir=cache_dir)
        for which in ("best", "last"):
            weights, expected = (load_adapters(r.checkpoints, which)[0] for r in (run, alone))
            for name, tensor in expected.items():
                torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=2e-4, msg=name)
    before = len(list_runs(cache_dir))
    again: list[Standing] = []
    sweep(toy_sweep(grid=GRID), cache_dir=cache_dir, on_progress=again.append)
    assert [len(standing.ended) for standing in again] == [4]
    wider = {**GRID, "seed": [0, 1, 2]}
    sweep(toy_sweep(grid=wider), cache_dir=cache_dir)
    assert len(list_runs(cache_dir)) == before + 2


def test_processes_give_what_one_pass_gives(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    one = sweep(toy_sweep(grid=GRID, name="one"), cache_dir=cache_dir)
    two = sweep(toy_sweep(grid=GRID, name="two", together=1, jobs=2), cache_dir=cache_dir)
    found, expected = ({t.key: t for t in trials_of(folder)} for folder in (two, one))
    assert found.keys() == expected.keys()
    for key, trial in found.items():
        assert trial.values == expected[key].values
        assert trial.scores["val_loss"] == pytest.approx(expected[key].scores["val_loss"], rel=1e-4)


@pytest.mark.parametrize("together", [1, 3])
def test_a_trial_that_breaks_is_marked_and_the_others_go_on(cache_dir: Path, together: int) -> None:
    paired_sets(cache_dir)
    grid = {"optim.lr": [1e-2, 1e30], "optim.clip_grad_norm": ["none"]}
    config = toy_sweep(grid=grid, together=together, jobs=1)
    folder = sweep(config, cache_dir=cache_dir)
    by_rate = {trial.values["optim.lr"]: trial for trial in trials_of(folder)}
    assert (by_rate[1e-2].status, by_rate[1e30].status) == ("finished", "failed")
    assert by_rate[1e30].error is not None
    assert "the loss is" in by_rate[1e30].error
    before = len(list_runs(cache_dir))
    sweep(config, cache_dir=cache_dir)
    assert len(list_runs(cache_dir)) == before
    sweep(config.model_copy(update={"retry_failed": True}), cache_dir=cache_dir)
    assert len(list_runs(cache_dir)) == before + 1


def test_a_sweep_that_was_interrupted_goes_on_with_the_runs_it_began(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paired_sets(cache_dir)
    whole = sweep(toy_sweep(grid=GRID, name="whole"), cache_dir=cache_dir)

    def stop(standing: Standing) -> None:
        if len(standing.ended) == 3:
            raise KeyboardInterrupt

    config = toy_sweep(grid=GRID, name="stopped")
    with pytest.raises(KeyboardInterrupt):
        sweep(config, cache_dir=cache_dir, on_progress=stop)
    interrupted = [run for run in list_runs(cache_dir) if run.info()["status"] != "finished"]
    folder = sweep(config, cache_dir=cache_dir)
    assert all(run.info()["status"] == "finished" for run in interrupted)
    found, expected = ({t.key: t.scores for t in trials_of(f)} for f in (folder, whole))
    assert found.keys() == expected.keys()
    for key, scores in found.items():
        assert scores == pytest.approx(expected[key], rel=1e-4, abs=1e-6)


def test_one_process_at_a_time_sweeps_a_folder(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    folder = cache_dir / "sweeps" / "sweep"
    folder.mkdir(parents=True)
    with holding(folder / "sweep"), pytest.raises(BusyError):
        sweep(toy_sweep(grid=GRID), cache_dir=cache_dir)


def test_features_that_changed_make_other_trials(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    before = {trial.key for trial in plan(toy_sweep(grid=GRID), cache_dir)}
    paired_sets(cache_dir, seed=1)
    # the sets of before and now bear the same names: the sweep has to be told which are meant
    with pytest.raises(CacheError):
        plan(toy_sweep(grid=GRID), cache_dir)
    assert len(before) == 4


def test_a_group_as_large_as_the_memory_lets_it(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    trials = plan(toy_sweep(grid=GRID), cache_dir)
    opened = sweep_workers.Opened(cache_dir, whole=True)
    task = sweep_workers.Task(trials[0].key, trials[0].config, None, "s", None)
    session = sweep_workers._session(task, opened)
    n = sum(p.numel() for p in session.parts.member.pair.parameters())
    assert (
        bytes_of(session.config, session.parts) > 16 * n
    )  # weights, gradients, two moments: four bytes each
    assert group_size(session.config, session.parts) == 1  # on a CPU


def test_the_leaderboard_ranks_what_finished_and_counts_what_failed() -> None:
    def trial(key: str, recall: float | None) -> TrialRecord:
        names = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "mean_recall")
        scores = {} if recall is None else {**dict.fromkeys(names, recall), "val_loss": 5 - recall}
        status: Any = "failed" if recall is None else "finished"
        return TrialRecord(key, {"optim.lr": 1e-4}, status, f"run-{key}", None, 1, 1.0, scores)

    trials = [trial("a", 0.1), trial("b", None), trial("c", 0.3), trial("d", 0.2)]
    assert [t.key for t in ranked(trials, "mean_recall")] == ["c", "d", "a"]
    assert [t.key for t in ranked(trials, "val_loss")] == ["c", "d", "a"]
    table = leaderboard_table(trials, "mean_recall", n_trials=9, limit=2)
    assert [row[1] for row in table.rows] == ["run-c", "run-d"]
    assert "3 of 9" in table.title
    assert "1 failed" in table.note


def test_tpe_proposes_as_many_as_wanted_and_goes_on_from_its_journal(cache_dir: Path) -> None:
    pytest.importorskip("optuna")
    paired_sets(cache_dir)
    space = {"optim.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "adapter.type": ["linear", "mlp"],
             "optim.epochs": {"low": 1, "high": 2}, "adapter.mlp_hidden_dims": [[8], [16]],
             "optim.warmup_epochs": [0]}  # fmt: skip
    config = toy_sweep(random=space, trials=3, sampler="tpe", together=2)
    folder = sweep(config, cache_dir=cache_dir)
    first = trials_of(folder)
    assert len(first) == 3
    sweep(config, cache_dir=cache_dir)
    assert len(trials_of(folder)) == 3
    sweep(config.model_copy(update={"trials": 5}), cache_dir=cache_dir)
    trials = trials_of(folder)
    assert [trial.key for trial in trials[:3]] == [trial.key for trial in first]
    assert 4 <= len(trials) <= 5  # a point that was tried before is not trained again
    for trial in trials:
        assert 1e-4 <= trial.values["optim.lr"] <= 1e-1
        assert math.isfinite(trial.scores["val_loss"])
    assert json.loads(json.dumps(trials[0].values)) == trials[0].values


class OneSecond(datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "OneSecond":
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(results.secrets, "token_hex", lambda n: next(drawn) if n == 2 else "0" * 2 * n)
    monkeypatch.setattr(results, "datetime", OneSecond)
    runs = [create_run(cache_dir / "runs", cache_dir, adapter="mlp", config_toml="") for _ in range(2)]
    assert len({run.folder for run in runs}) == 2
    assert all(run.checkpoints.is_dir() for run in runs)
