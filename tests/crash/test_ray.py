"""Ray: two nodes on one machine, one of them killed on the way, and the result of one process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from align_cache.config import flag_layer
from align_cache.results import list_runs
from align_cache.sweeps.records import TrialRecord, trials_of
from tests.unit.stored import paired_sets, published_bytes
from tests.unit.test_fit import TOY

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

EXTRACT = (
    "extract --dataset shapes --set options.count=400 --set shard_rows=8 "
    "--encoder small-cnn --encoder small-text --weights random --device cpu"
)


class TwoNodes:
    """A cluster of two nodes with one processor each; commands run beside it, as on a login node."""

    def __init__(self) -> None:
        child = Path(__file__).with_name("ray_nodes.py")
        self._child = subprocess.Popen([sys.executable, str(child)], text=True, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        self._address = self._answer()

    def run(self, *arguments: str, kill_when: Callable[[], bool]) -> None:
        """Run a command on the cluster and kill a node with all its processes when the time has come."""
        address = ("--executor", "ray", "--ray-address", self._address)
        process = subprocess.Popen([sys.executable, "-m", "align_cache", *arguments, *address],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        while not kill_when():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        print("kill", file=self._child.stdin, flush=True)
        assert self._answer() == "killed"
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said

    def close(self) -> None:
        self._child.communicate(timeout=60)

    def _answer(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    yield nodes
    nodes.close()


def test_an_extraction_that_loses_a_node_has_the_bytes_of_one_process(
    tmp_path: Path, two_nodes: TwoNodes
) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    command = [sys.executable, "-m", "align_cache", *EXTRACT.split()]
    subprocess.run([*command, "--cache-dir", str(alone)], check=True, capture_output=True)

    def some_are_there() -> bool:
        return len(list(shared.glob("features/*/*/shard-*.h5"))) >= 20

    two_nodes.run(*EXTRACT.split(), "--cache-dir", str(shared), kill_when=some_are_there)
    assert published_bytes(shared) == published_bytes(alone)
    assert len(published_bytes(shared)) == 50 + 250 + 2


def test_a_sweep_that_loses_a_node_has_the_scores_of_one_process(
    cache_dir: Path, tmp_path: Path, two_nodes: TwoNodes
) -> None:
    paired_sets(cache_dir)
    settings: dict[str, Any] = flag_layer({**TOY, "optim.epochs": 3}).values
    file = tmp_path / "toy.toml"
    file.write_text(tomli_w.dumps({**settings, "grid": {"seed": list(range(8))}}))
    common = ("sweep", "--config", str(file), "--no-figures", "--cache-dir", str(cache_dir))
    alone = [sys.executable, "-m", "align_cache", *common, "--name", "alone"]  # a thread for each, as there
    subprocess.run(alone, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    folder = cache_dir / "sweeps" / "shared"
    two_nodes.run(*common, "--name", "shared", kill_when=(folder / "trials.jsonl").exists)
    assert scores(trials_of(folder)) == scores(trials_of(cache_dir / "sweeps" / "alone"))
    runs = [run for run in list_runs(cache_dir) if run.info().get("sweep") == "shared"]
    assert [run.info()["status"] for run in runs] == ["finished"] * 8  # begun ones were gone on with


def scores(trials: list[TrialRecord]) -> dict[str, Any]:
    assert all(trial.status == "finished" for trial in trials)
    return {trial.key: dict(trial.scores) for trial in trials}
