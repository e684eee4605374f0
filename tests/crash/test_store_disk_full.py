"""A disk that is full or read-only, for real: a small file system of its own for each test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a mount namespace of its own, so that nothing is left behind whatever happens.
_SETUP = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
_MOUNT = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
CHILD = Path(__file__).with_name("full_disk_child.py")


def run(mode: str, folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        subprocess.run(
            [*_SETUP, 'mount -t tmpfs tmpfs "$1"', "sh", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small file system can be mounted here (needs unshare and tmpfs)")
    command = [*_SETUP, _MOUNT, "sh", str(folder), sys.executable, str(CHILD), mode]
    beside = os.environ | {"PYTHONPATH": str(CHILD.parent)}
    return subprocess.run(command, env=beside, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("mode", ["refused-before", "full-in-shard", "full-in-manifest", "read-only"])
def test_a_full_or_read_only_disk_is_one_line_and_the_work_resumes(tmp_path, mode):
    done = run(mode, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "resumed\n"
