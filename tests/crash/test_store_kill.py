"""kill -9 at every step and at random moments: whole or absent, and the same bytes in the end."""

import subprocess
import sys
from pathlib import Path

import pytest

from align_cache.errors import BusyError
from align_cache.store import find
from align_cache.store.verify import remove

CHILD = Path(__file__).with_name("store_child.py")


def run(*arguments: object) -> str:
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_kill_at_any_step_of_the_protocol_is_mended_to_the_same_bytes(cache_dir):
    # Five shards, provenance, manifest: each flushed, renamed, its folder flushed, its temporary dropped.
    assert int(run("every-step", cache_dir)) >= 7 * 4


def test_ten_kills_at_random_moments_are_mended_to_the_same_bytes(cache_dir):
    run("random", cache_dir, 10)  # every assertion is made in the child, after each kill


@pytest.mark.slow
def test_three_hundred_kills_at_random_moments_are_mended_to_the_same_bytes(cache_dir):
    assert int(run("random", cache_dir, 300)) > 0


def test_a_lock_dies_with_its_holder_however_it_dies(cache_dir):
    command = [sys.executable, str(CHILD), "hold", str(cache_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        folder = find(cache_dir)[0].folder
        with pytest.raises(BusyError, match=f"pid {child.pid} on "):
            remove(folder)
        child.kill()
    remove(folder)
    assert find(cache_dir) == []
