"""kill -9 at random moments of an extraction, then the same command: the same bytes."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.stored import published_bytes

LINE = (
    "extract --dataset shapes --set options.count=400 --set shard_rows=32 "
    "--encoder small-cnn --encoder small-text --weights random --device cpu"
)


def command(cache_dir: Path) -> list[str]:
    return [sys.executable, "-m", "align_cache", *LINE.split(), "--cache-dir", str(cache_dir)]


def n_shards(cache_dir: Path) -> int:
    return len(list(cache_dir.glob("features/*/*/shard-*.h5")))


def kill_and_finish(cache_dir: Path, *, kills: int, seed: int) -> int:
    """Start and kill until ``kills`` processes died in the middle of work; return shards found half-way."""
    generator, half_way = random.Random(seed), 0
    for _ in range(kills):
        process = subprocess.Popen(command(cache_dir), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = n_shards(cache_dir)
        while process.poll() is None and n_shards(cache_dir) == before:
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.2))
        process.kill()
        process.wait()
        half_way += n_shards(cache_dir) > 0
    subprocess.run(command(cache_dir), check=True, capture_output=True)
    return half_way


def test_two_kills_in_the_middle_leave_the_bytes_of_an_uninterrupted_run(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    assert kill_and_finish(tmp_path / "killed", kills=2, seed=0) == 2
    assert published_bytes(tmp_path / "killed") == published_bytes(tmp_path / "whole")


@pytest.mark.slow
def test_a_hundred_kills_leave_the_bytes_of_an_uninterrupted_run(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    expected = published_bytes(tmp_path / "whole")
    for round_ in range(20):
        kill_and_finish(tmp_path / str(round_), kills=5, seed=round_)
        assert published_bytes(tmp_path / str(round_)) == expected
