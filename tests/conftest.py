"""Shared fixtures: one thread for torch, the real data where it is, a cache folder per test."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


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
