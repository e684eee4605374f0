"""A sweep that is stopped from outside: its processes end with it, and the same command finishes the work."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from align_cache.config import flag_layer
from align_cache.results import find_run
from align_cache.sweeps.records import trials_of
from tests.unit.stored import paired_sets
from tests.unit.test_fit import TOY

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for children in /proc")


def children_of(pid: int) -> set[int]:
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.add(int(status.parent.name))
    return found


def is_training(pid: int) -> bool:
    """Whether a child is one of the pool and no helper of ``multiprocessing``."""
    return b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def wait_until(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def sweep_command(cache_dir: Path, tmp_path: Path) -> list[str]:
    """A sweep of eight trials in two processes."""
    paired_sets(cache_dir)
    settings = flag_layer({**TOY, "optim.epochs": 3}).values
    file = tmp_path / "toy.toml"
    file.write_text(tomli_w.dumps({**settings, "grid": {"seed": list(range(8))}}))
    return [sys.executable, "-m", "align_cache", "sweep", "--config", str(file), "--jobs", "2",
               "--no-figures", "--cache-dir", str(cache_dir)]  # fmt: skip


def go_on(command: list[str]) -> None:
    again = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_sweep_that_is_stopped_leaves_no_process_and_goes_on(
    number: signal.Signals, code: int, cache_dir: Path, tmp_path: Path
) -> None:
    command, folder = sweep_command(cache_dir, tmp_path), cache_dir / "sweeps" / "toy"
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: (folder / "trials.jsonl").exists())
    workers = children_of(process.pid)
    assert len(workers) >= 2
    process.send_signal(number)
    assert process.wait(timeout=180) == code
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    ended = len(trials_of(folder))
    assert 1 <= ended < 8
    go_on(command)
    trials = trials_of(folder)
    assert len({trial.key for trial in trials}) == 8
    assert all(trial.status == "finished" for trial in trials)
    assert all(
        find_run(str(trial.run), cache_dir=cache_dir).info()["status"] == "finished" for trial in trials
    )


def test_a_sweep_whose_process_is_killed_says_so_leaves_no_other_and_goes_on(
    cache_dir: Path, tmp_path: Path
) -> None:
    command, folder = sweep_command(cache_dir, tmp_path), cache_dir / "sweeps" / "toy"
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: (folder / "trials.jsonl").exists())
    workers = [pid for pid in children_of(process.pid) if is_training(pid)]
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1, err
    assert "error: a process of the sweep was killed from outside (was memory short?)" in err
    assert "Traceback" not in err
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    go_on(command)
    assert [trial.status for trial in trials_of(folder)].count("finished") == 8
