"""Fill the disk under a feature set that is being written; run by test_store_disk_full.py on a 1 MB tmpfs."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from store_child import check_stage, contents, write

from align_cache.errors import CacheError


def refused(cache_dir: Path, expected: str) -> None:
    with pytest.raises(CacheError, match=expected) as caught:
        write(cache_dir)
    assert caught.value.hint is not None
    assert "\n" not in caught.value.message


def refused_when_full(cache_dir: Path, lost: list[Path], leave_bytes: int) -> None:
    """Lose some files of a finished set, fill the disk up, and write them again."""
    folder = lost[0].parent
    reference = contents(folder)
    for path in lost:
        path.unlink()
    ballast = cache_dir / "ballast"
    ballast.write_bytes(bytes(free_bytes(cache_dir) - leave_bytes))
    refused(cache_dir, "No space left on device")
    assert not check_stage(folder, reference)
    assert not list(folder.glob(".*")), "a temporary file stayed"
    ballast.unlink()


def main() -> None:
    cache_dir, mode = Path(sys.argv[1]), sys.argv[2]
    if mode == "refused-before":
        refused(cache_dir, "MB free")
    # From here the check of free space passes, as if another process filled the disk just after it.
    shutil.disk_usage = lambda path: SimpleNamespace(free=10**12)
    folder = write(cache_dir)
    reference = contents(folder)
    if mode == "full-in-shard":
        shards = sorted(folder.glob("*.h5"))
        refused_when_full(cache_dir, shards, leave_bytes=2 * shards[0].stat().st_size + 8192)
        assert len(list(folder.glob("*.h5"))) in (1, 2), "the shards before the full disk are kept"
    elif mode == "full-in-manifest":
        refused_when_full(cache_dir, [folder / "manifest.json", folder / "provenance.json"], leave_bytes=0)
    elif mode == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(cache_dir)], check=True)
        refused(cache_dir, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(cache_dir)], check=True)
    assert contents(write(cache_dir)) == reference
    print("resumed")


def free_bytes(folder: Path) -> int:
    line = subprocess.run(
        ["stat", "-f", "-c", "%a %S", str(folder)], capture_output=True, text=True, check=True
    )
    blocks, size = map(int, line.stdout.split())
    return blocks * size


if __name__ == "__main__":
    main()
