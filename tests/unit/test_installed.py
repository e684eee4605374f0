"""The copy of the package that is tested: the installed one, and the same files as this tree."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import align_cache

ROOT = Path(__file__).parents[2]
INSTALLED = Path(align_cache.__file__).parent


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_what_is_tested_holds_the_very_files_of_this_tree() -> None:
    tested, tree = files(INSTALLED), files(ROOT / "align_cache")
    differing = sorted(name for name in tested.keys() | tree.keys() if tested.get(name) != tree.get(name))
    assert not differing, "install it again, or once and for all with: pip install -e '.[dev]'"


@pytest.mark.skipif(
    "ALIGN_CACHE_TEST_INSTALLED" not in os.environ, reason="only where a wheel has to be tested"
)
def test_what_is_tested_is_an_installed_wheel_and_no_tree() -> None:
    assert INSTALLED.is_relative_to(sysconfig.get_path("purelib"))


def test_a_process_that_a_test_starts_in_the_tree_imports_the_same_copy() -> None:
    code = "import align_cache; print(align_cache.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == INSTALLED
