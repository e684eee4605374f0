"""TensorBoard's copy of the log: every number once, also after a resume; refused where it is missing."""

from pathlib import Path
from typing import Any

import pytest

from align_cache.errors import UsageError
from align_cache.results import Run, list_runs
from align_cache.settings import SweepConfig
from align_cache.sweeps.sweeping import sweep
from align_cache.training.fitting import fit, resume_fit
from align_cache.training.scalar_log import scalars
from tests.unit.stored import paired_sets
from tests.unit.test_fit import TOY, toy

Points = dict[str, list[tuple[int, float]]]


def read_back(run: Run) -> Points:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def expected(run: Run) -> Points:
    points: Points = {}
    for record in run.records():
        for tag, value in scalars(record):
            points.setdefault(tag, []).append((record.get("step", record["epoch"]), value))
    return points


def assert_same(found: Points, wanted: Points) -> None:
    assert found.keys() == wanted.keys()
    for tag, points in wanted.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
        assert [v for _, v in found[tag]] == pytest.approx([v for _, v in points], rel=1e-6), tag


def test_a_record_gives_its_numbers_and_nothing_else() -> None:
    record: dict[str, Any] = {"kind": "epoch", "epoch": 3, "val": {"loss": 1.5, "text": None}, "n": 20}
    record |= {"name": "x", "flag": True, "interval": [0.1, 0.2]}
    assert dict(scalars(record)) == {"epoch/val/loss": 1.5, "epoch/n": 20.0}


def test_the_event_file_says_what_the_records_say(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(optim__epochs=2, log__tensorboard=True), cache_dir=cache_dir)
    found = read_back(run)
    assert_same(found, expected(run))
    assert [step for step, _ in found["epoch/val/loss"]] == [0, 1, 2]
    assert len(found["step/loss"]) == 2 * run.info()["steps_per_epoch"]


def test_a_resumed_run_has_each_number_once(cache_dir: Path) -> None:
    paired_sets(cache_dir)

    def stop(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["epoch"] == 3:
            raise KeyboardInterrupt

    settings = toy(optim__epochs=3, log__tensorboard=True)
    with pytest.raises(KeyboardInterrupt):
        fit(settings, cache_dir=cache_dir, on_record=stop)
    run = list_runs(cache_dir)[-1]
    assert 3 in {record["epoch"] for record in run.records()}  # what the resumed run logs again
    resume_fit(run.id, cache_dir=cache_dir)
    assert_same(read_back(run), expected(run))
    assert len(list((run.folder / "tensorboard").iterdir())) == 1


def test_there_are_no_event_files_unasked(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(optim__epochs=1, optim__warmup_epochs=0), cache_dir=cache_dir)
    assert not (run.folder / "tensorboard").exists()


def test_without_tensorboard_a_run_and_a_sweep_are_refused_before_they_begin(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paired_sets(cache_dir)
    monkeypatch.setattr("align_cache.runtime.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed") as refused:
        fit(toy(log__tensorboard=True), cache_dir=cache_dir)
    assert refused.value.hint == "pip install 'align-cache[tensorboard]'"
    asked = {**TOY, "log.tensorboard": True}
    with pytest.raises(UsageError, match="not installed"):
        sweep(SweepConfig(base=asked, grid={"seed": [0, 1]}), cache_dir=cache_dir)
    assert list_runs(cache_dir) == []
