"""Shared fixtures: one thread for torch, the real data where it is, a cache folder per test.

The package that is tested is the installed one: a wheel or, after ``pip install -e``, this tree.
"""

import os
import signal
from pathlib import Path

import pytest

import align_cache

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Processes that tests start must not import what lies in their working folder, the tree.
os.environ["PYTHONSAFEPATH"] = "1"
# A shell lets its background jobs ignore Ctrl-C, and what they start inherits it: tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Say which copy of the package is tested."""
    return f"align_cache: {Path(align_cache.__file__).parent}"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by ALIGN_CACHE_TEST_DATA; skips where it is unset."""
    value = os.environ.get("ALIGN_CACHE_TEST_DATA")
    if not value:
        pytest.skip("ALIGN_CACHE_TEST_DATA is not set: no real data here")
    return Path(value)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder
