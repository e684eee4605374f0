"""Damage of every sort to every kind of file of a feature set: found by verify, mended by extract."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from align_cache.errors import CacheError
from align_cache.extraction.extracting import Extracted, extract
from align_cache.settings import ExtractConfig
from align_cache.store import FeatureSet, find
from align_cache.store.shard import HEADER_BYTES
from align_cache.store.verify import verify
from tests.unit.test_store_fuzz import sealed_json

# Token ids need no model: extracting them takes a fraction of a second.
SETTINGS: dict[str, Any] = {"dataset": "shapes", "options": {"count": 8}, "shard_rows": 16, "device": "cpu"}
OTHER = 24
"""Longest caption of the second set, whose files take the place of the first one's."""


def tokens(cache_dir: Path, max_length: int = 16) -> Extracted:
    (done,) = extract(
        ExtractConfig(**SETTINGS, encoders=("tokens",), max_length=max_length), cache_dir=cache_dir
    )
    return done


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "provenance.json"}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache_dir = tmp_path_factory.mktemp("extracted")
    tokens(cache_dir)
    tokens(cache_dir, OTHER)
    return cache_dir


@pytest.fixture
def folder(extracted: Path, cache_dir: Path) -> Path:
    """The folder of a finished set of three shards, in a cache with another."""
    shutil.copytree(extracted, cache_dir, dirs_exist_ok=True)
    (found,) = (stored.folder for stored in find(cache_dir) if stored.manifest.dim == 16)
    return found


def other_folder(folder: Path) -> Path:
    (found,) = (path for path in folder.parent.iterdir() if path.is_dir() and path != folder)
    return found


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def delete(path: Path) -> None:
    path.unlink()


def link(path: Path) -> None:
    path.rename(path.parents[3] / "moved")
    path.symlink_to(path.parents[3] / "moved")


def of_another_set(path: Path) -> None:
    shutil.copy(other_folder(path.parent) / path.name, path)


def forge(path: Path) -> None:
    """Change the content, and let the file's own checksum fit it."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".h5":
        data[-1] ^= 1
        body = bytes(data[HEADER_BYTES:])
        head = f"align-cache shard\nformat 1\nxxh3_128 {xxhash.xxh3_128_hexdigest(body)}\n".encode()
        path.write_bytes(head.ljust(HEADER_BYTES, b"\0") + body)
    else:
        document = json.loads(data)
        document["dim" if path.name == "manifest.json" else "key"] = 17
        path.write_bytes(sealed_json(document))


def swap(path: Path) -> None:
    beside = path.with_name("shard-00000.h5")
    one, two = path.read_bytes(), beside.read_bytes()
    path.write_bytes(two)
    beside.write_bytes(one)


SORTS: tuple[Callable[[Path], None], ...] = (truncate, empty, extend, flip, delete, of_another_set, forge)
CASES = [(name, sort) for name in ("manifest.json", "provenance.json", "shard-00001.h5") for sort in SORTS]
CASES += [("shard-00001.h5", link), ("shard-00001.h5", swap)]


@pytest.mark.parametrize(("name", "sort"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_damage_is_found_by_verify_and_mended_by_extract_to_the_same_bytes(
    name: str, sort: Callable[[Path], None], folder: Path, cache_dir: Path
) -> None:
    before, rows = contents(folder), FeatureSet.open(folder).array()
    sort(folder / name)
    findings = verify(cache_dir)
    assert findings
    assert {finding.path.parent if finding.path != folder else folder for finding in findings} == {folder}
    if name == "provenance.json":
        assert (FeatureSet.open(folder).array() == rows).all(), "nothing depends on provenance"
    else:
        with pytest.raises(CacheError):
            FeatureSet.open(folder)
    assert tokens(cache_dir).folder == folder
    assert contents(folder) == before
    assert verify(cache_dir) == []
    (stored,) = (stored for stored in find(cache_dir) if stored.folder == folder)
    assert stored.provenance() is not None


@pytest.mark.parametrize("name", ["manifest.json", "provenance.json"])
def test_a_link_in_place_of_a_record_is_found_and_never_written_through(
    name: str, folder: Path, cache_dir: Path
) -> None:
    link(folder / name)
    elsewhere = (folder / name).resolve()
    before = elsewhere.read_bytes()
    assert [finding.problem for finding in verify(folder)] == ["is not a regular file"]
    with pytest.raises(CacheError, match=f"{name} is not a regular file: refusing to publish over it"):
        tokens(cache_dir)
    assert elsewhere.read_bytes() == before
    (folder / name).unlink()
    tokens(cache_dir)
    assert verify(cache_dir) == []


@pytest.mark.parametrize("name", [".shard-00001.h5.0a1b2c3d4e5f.tmp", ".manifest.json.0a1b2c3d4e5f.tmp"])
def test_what_a_kill_left_half_written_is_found_and_swept_by_the_next_extract_that_writes(
    name: str, folder: Path, cache_dir: Path
) -> None:
    before = contents(folder)
    (folder / name).write_bytes(b"half")
    assert [finding.kind for finding in verify(cache_dir)] == ["leftover"]
    assert (FeatureSet.open(folder).sample_ids != "").all(), "readers never look at it"
    (folder / "manifest.json").unlink()
    tokens(cache_dir)
    assert contents(folder) == before


@pytest.mark.parametrize("content", [b"", b"pid \xff on nowhere", b"x" * 10_000, None])
def test_whatever_the_lock_and_its_holder_hold_keeps_nobody_out(
    content: bytes | None, folder: Path, cache_dir: Path
) -> None:
    for name in (f"{folder.name}.lock", f"{folder.name}.holder"):
        path = folder.with_name(name)
        path.unlink(missing_ok=True) if content is None else path.write_bytes(content)
    (folder / "shard-00001.h5").unlink()
    assert tokens(cache_dir).samples_done == 16
    assert verify(cache_dir) == []


def test_a_folder_in_place_of_the_lock_is_one_line(folder: Path, cache_dir: Path) -> None:
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
    folder.with_name(f"{folder.name}.lock").mkdir()
    (folder / "shard-00001.h5").unlink()
    with pytest.raises(CacheError, match="cannot write below") as caught:
        tokens(cache_dir)
    assert "\n" not in caught.value.message
