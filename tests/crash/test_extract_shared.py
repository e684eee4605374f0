"""Processes that share an extraction: the bytes of one process, also when one of them is killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.stored import published_bytes

LINE = (
    "extract --dataset shapes --set options.count=120 --set shard_rows=16 "
    "--encoder small-cnn --encoder small-text --weights random --device cpu"
)


def command(cache_dir: Path) -> list[str]:
    return ["-m", "align_cache", *LINE.split(), "--cache-dir", str(cache_dir)]


def rank_of_two(rank: int, cache_dir: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    return subprocess.Popen(
        [sys.executable, *command(cache_dir)], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    cache_dir = tmp_path_factory.mktemp("whole")
    subprocess.run([sys.executable, *command(cache_dir)], check=True, capture_output=True)
    return published_bytes(cache_dir)


def test_two_processes_of_torchrun_make_the_bytes_of_one(tmp_path: Path, whole: dict[str, bytes]) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, *command(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert published_bytes(tmp_path) == whole


def test_a_rank_that_is_killed_loses_its_shard_only_and_is_run_again(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    killed = rank_of_two(1, tmp_path)
    while killed.poll() is None and not list(tmp_path.glob("features/*/*/shard-00003.h5")):
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    kept = {name: data for name, data in published_bytes(tmp_path).items() if not name.endswith(".tmp")}
    assert kept
    assert kept.items() <= whole.items()
    other = rank_of_two(0, tmp_path)
    _, said = other.communicate()
    assert other.returncode == 0, said
    assert "shards of shapes/small-text-" in said
    assert "are others'" in said
    again = rank_of_two(1, tmp_path)
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert published_bytes(tmp_path) == whole
