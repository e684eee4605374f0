"""Seeded mutations: an error of ours or the very rows; no other exception, no hang."""

import hashlib
import json
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash

from align_cache.errors import AlignCacheError, CacheError
from align_cache.store import FeatureSet, find
from align_cache.store.layout import canonical_json
from align_cache.store.shard import HEADER_BYTES, open_shard
from align_cache.store.verify import verify
from tests.golden import make
from tests.unit.mutations import ON_BYTES, as_json, mutate_json

MUTATIONS = 300
LIMIT_S, LIMIT_BYTES = 120, 8 << 30


def reads(folder: Path, *, verified: bool = True) -> np.ndarray | None:
    """Read everything of a set; None where it is refused with an error of ours."""
    try:
        features = FeatureSet.open(folder, verify=verified)
        for column in ("sample_ids", "group_ids", "splits", "texts", "labels"):
            getattr(features, column)
        return features.array()
    except AlignCacheError:
        return None


def provenance(folder: Path) -> dict[str, object]:
    (stored,) = (stored for stored in find(folder.parents[2]) if stored.folder == folder)
    return stored.provenance() or {}


def sealed_json(document: dict[str, object]) -> bytes:
    """Give a manifest a checksum that fits."""
    body = {name: value for name, value in document.items() if name != "sha256"}
    try:
        seal = hashlib.sha256(canonical_json(body)).hexdigest()
    except (ValueError, TypeError):
        seal = "0" * 64
    return as_json({**body, "sha256": seal})


@pytest.fixture
def golden(tmp_path: Path) -> list[Path]:
    """The folders of a copy of the golden cache: features, and token ids."""
    shutil.copytree(make.CACHE, tmp_path / "cache")
    return [stored.folder for stored in find(tmp_path / "cache")]


@pytest.mark.parametrize("which", [0, 1], ids=["features", "tokens"])
@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.h5"])
def test_damage_to_a_file_gives_an_error_of_ours_or_the_very_rows(
    golden: list[Path], name: str, which: int
) -> None:
    path, rng = golden[which] / name, random.Random(name)
    before, rows, refused = path.read_bytes(), FeatureSet.open(path.parent).array(), 0
    for _ in range(MUTATIONS // 4):
        path.write_bytes(rng.choice(ON_BYTES)(rng, before))
        found = reads(path.parent)
        assert found is None or np.array_equal(found, rows)
        assert (found is None) == bool(verify(path.parent)), "verify and open differ"
        refused += found is None
        reads(path.parent, verified=False)
    assert refused > MUTATIONS // 5


def test_damage_to_the_provenance_is_found_and_keeps_nobody_from_the_rows(golden: list[Path]) -> None:
    path, rng = golden[0] / "provenance.json", random.Random(0)
    before, record, rows = path.read_bytes(), provenance(golden[0]), FeatureSet.open(golden[0]).array()
    for _ in range(MUTATIONS // 4):
        path.write_bytes(rng.choice(ON_BYTES)(rng, before))
        found = reads(path.parent)
        assert found is not None
        np.testing.assert_array_equal(found, rows)
        assert verify(path.parent) or record.items() <= provenance(path.parent).items()


def test_a_manifest_with_any_change_and_a_fitting_checksum_gives_an_error_of_ours_or_the_very_rows(
    golden: list[Path],
) -> None:
    refused = 0
    for folder in golden:
        path, rng = folder / "manifest.json", random.Random(1)
        document, rows = json.loads(path.read_bytes()), FeatureSet.open(folder).array()
        for _ in range(MUTATIONS // 2):
            path.write_bytes(sealed_json(mutate_json(rng, document)))
            found = reads(folder)
            assert found is None or np.array_equal(found, rows)
            refused += found is None
    assert refused > MUTATIONS / 2


def test_a_shard_with_any_change_and_a_fitting_checksum_never_crashes_the_reader() -> None:
    """In a process of its own: of forged metadata HDF5 could make a crash, a hang or a huge request."""
    # The tree comes last, so that the package that is installed is the one that is tested.
    code = "import sys; sys.path.append(sys.argv[1]); from tests.unit.test_store_fuzz import main; main()"
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2])]
    done = subprocess.run(command, timeout=LIMIT_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    opened, refused = map(int, done.stdout.split())
    assert opened + refused == MUTATIONS
    assert refused > MUTATIONS / 4


def main() -> None:
    """Open forged copies of the golden shards, and touch every value that they give."""
    import tempfile

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    opened = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard-00000.h5"
        for stored in find(make.CACHE):
            body = (stored.folder / path.name).read_bytes()[HEADER_BYTES:]
            rng = random.Random(stored.manifest.key)
            for _ in range(MUTATIONS // 2):
                forged = rng.choice(ON_BYTES)(rng, body)
                head = f"align-cache shard\nformat 1\nxxh3_128 {xxhash.xxh3_128_hexdigest(forged)}\n"
                path.write_bytes(head.encode().ljust(HEADER_BYTES, b"\0") + forged)
                try:
                    for values in open_shard(path).columns.values():
                        assert values.copy().nbytes <= len(body)
                    opened += 1
                except CacheError:
                    refused += 1
    print(opened, refused)
