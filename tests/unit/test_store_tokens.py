"""Sets that hold token ids: what may be stored, what is refused on the way in and on the way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash

from align_cache.errors import CacheError, CorruptError, ShapeError
from align_cache.store import FeatureSet, FeatureSetWriter, find, is_complete
from align_cache.store.derive import derive_manifest
from align_cache.store.layout import identity_key, parse_identity
from align_cache.store.shard import HEADER_BYTES, open_shard
from align_cache.store.verify import verify

VOCABULARY = 9
ROWS = [[2, 8, 3, 0], [2, 3, 0, 0], [1, 0, 0, 0], [2, 4, 5, 3], [8, 8, 8, 8]]

Identity = dict[str, Any]


def identity_of(*, rows: int = len(ROWS), max_length: int = 4, shard_rows: int = 2) -> Identity:
    return {
        "format": 1,
        "dataset": {
            "name": "toy", "revision": "1", "splits": None, "limit": None, "samples": "0" * 64, "rows": rows,
        },
        "encoder": {
            "name": "tokens", "modality": "text", "tokenizer": {"sha256": "f" * 64},
            "max_length": max_length, "vocabulary_size": VOCABULARY, "pad_id": 0,
        },
        "compute": {},
        "storage": {"dtype": "int32", "normalised": False, "shard_rows": shard_rows},
        "corruption": None,
    }  # fmt: skip


def write(cache_dir: Path, identity: Identity, rows: Any = ROWS, *, stop: int | None = None) -> Path:
    ids = np.array(rows, np.int32).reshape(-1, identity["encoder"]["max_length"])
    with FeatureSetWriter(cache_dir, identity, untrained=False) as writer:
        for index in writer.missing[:stop]:
            part = writer.shard_slices[index]
            names = [f"c{row}" for row in range(part.start, part.stop)]
            writer.write_shard(
                index, features=ids[part], sample_id=names, group_id=names, text=[""] * len(names)
            )
        if not writer.missing:
            writer.finish({})
    return writer.folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_ids_come_back_as_they_were_given(cache_dir: Path) -> None:
    features = FeatureSet.open(write(cache_dir, identity_of()))
    assert features.holds_tokens
    assert (features.vocabulary_size, features.dim, features.dtype) == (VOCABULARY, 4, np.dtype("<i4"))
    assert features.array().tolist() == ROWS
    assert features.take(np.array([4, 0, 0])).tolist() == [ROWS[4], ROWS[0], ROWS[0]]
    assert repr(features) == f"FeatureSet({features.name}, 5 x 4 tokens int32)"
    assert verify(cache_dir) == []


@pytest.mark.parametrize(
    ("rows", "max_length"), [([[1]], 1), ([[8]], 1), ([[3, 0]], 2), ([[1, 2, 3]], 3)], ids=str
)
def test_one_row_and_one_token_are_enough(cache_dir: Path, rows: list[list[int]], max_length: int) -> None:
    features = FeatureSet.open(write(cache_dir, identity_of(rows=1, max_length=max_length), rows))
    assert features.array().tolist() == rows


def test_a_shard_whose_samples_are_all_skipped_has_no_rows(cache_dir: Path) -> None:
    with FeatureSetWriter(cache_dir, identity_of(rows=1), untrained=False) as writer:
        writer.write_shard(0, features=np.zeros((0, 4), np.int32), sample_id=[], skipped=[("a", "why")])
        writer.finish({})
    features = FeatureSet.open(writer.folder)
    assert (features.rows, features.array().shape, features.vocabulary_size) == (0, (0, 4), VOCABULARY)


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_resumed_set_has_the_bytes_of_an_uninterrupted_one(
    cache_dir: Path, tmp_path: Path, stop: int
) -> None:
    whole = contents(write(tmp_path / "whole", identity_of()))
    write(cache_dir, identity_of(), stop=stop)
    assert is_complete(cache_dir, identity_of()) is None
    assert contents(write(cache_dir, identity_of())) == whole


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ([2, VOCABULARY, 3, 0], "has token id 9, expected 0 to 8"),
        ([2, -1, 3, 0], "has token id -1, expected 0 to 8"),
        ([0, 0, 0, 0], "has no token"),
        ([0, 2, 3, 0], "has a token after padding"),
        ([2, 0, 3, 0], "has a token after padding"),
        ([2, 3, 0, 4], "has a token after padding"),
    ],
    ids=str,
)
def test_a_row_that_is_not_tokens_and_then_padding_is_refused_naming_the_sample(
    cache_dir: Path, row: list[int], problem: str
) -> None:
    with pytest.raises(CacheError, match=f"sample 'c1' {problem}"):
        write(cache_dir, identity_of(), [ROWS[0], row, *ROWS[2:]])
    assert find(cache_dir) == []


@pytest.mark.parametrize(
    "ids",
    [
        np.ones((2, 3), np.int32),
        np.ones((2, 5), np.int32),
        np.ones((1, 4), np.int32),
        np.ones((2, 4), np.int64),
        np.ones((2, 4), np.float32),
        np.ones(2, np.int32),
    ],
    ids=lambda ids: f"{ids.dtype}{ids.shape}",
)
def test_ids_of_another_shape_or_type_are_refused(cache_dir: Path, ids: np.ndarray) -> None:
    with (
        FeatureSetWriter(cache_dir, identity_of(), untrained=False) as writer,
        pytest.raises(ShapeError, match=r"expected int32 \(2, 4\)"),
    ):
        writer.write_shard(0, features=ids, sample_id=["a", "b"])


def forge(shard: Path, change: Callable[[np.ndarray], None]) -> None:
    """Change the ids of a shard and give it a checksum that fits."""
    with h5py.File(shard, "r+") as file:
        ids = file["features"][:]
        change(ids)
        file["features"][:] = ids
    data = bytearray(shard.read_bytes())
    digest = xxhash.xxh3_128_hexdigest(bytes(data[HEADER_BYTES:])).encode()
    start = data.index(b"xxh3_128 ") + len(b"xxh3_128 ")
    data[start : start + len(digest)] = digest
    shard.write_bytes(bytes(data))


def test_damage_is_found_and_the_shard_made_again(cache_dir: Path) -> None:
    folder = write(cache_dir, identity_of())
    whole, shard = contents(folder), folder / "shard-00001.h5"
    data = bytearray(shard.read_bytes())
    data[data.index(np.array(ROWS[3], "<i4").tobytes())] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match=r"shard-00001\.h5 is damaged"):
        FeatureSet.open(folder)
    assert [finding.path for finding in verify(cache_dir)] == [shard]
    assert contents(write(cache_dir, identity_of())) == whole


def test_a_shard_with_a_fitting_checksum_and_an_id_outside_the_vocabulary_is_made_again(
    cache_dir: Path,
) -> None:
    """It would index past the end of an embedding table."""
    folder = write(cache_dir, identity_of())
    whole, shard = contents(folder), folder / "shard-00001.h5"

    def enlarge(ids: np.ndarray) -> None:
        ids[1, 1] = VOCABULARY

    forge(shard, enlarge)
    shards = [open_shard(path) for path in sorted(folder.glob("*.h5"))]
    manifest = derive_manifest(identity_of(), shards, untrained=False, label_names=())
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(CorruptError, match=r"shard-00001\.h5: sample 'c3' has token id 9, expected 0 to 8"):
        FeatureSet.open(folder)
    assert is_complete(cache_dir, identity_of()) is None
    with FeatureSetWriter(cache_dir, identity_of(), untrained=False) as writer:
        assert writer.missing == (1,)
        assert "sample 'c3' has token id 9" in writer.notes[0]
    assert contents(write(cache_dir, identity_of())) == whole


@pytest.mark.parametrize(
    ("part", "change", "problem"),
    [
        ("storage", {"normalised": True}, "int32 with normalised True"),
        ("storage", {"dtype": "float16"}, "float16 with normalised False"),
        ("storage", {"dtype": "int64"}, "storage.dtype"),
        ("encoder", {"pad_id": 1}, "pad_id"),
        ("encoder", {"vocabulary_size": 1}, "vocabulary_size"),
        ("encoder", {"max_length": 0}, "max_length"),
        ("encoder", {"modality": "image"}, "modality"),
    ],
    ids=str,
)
def test_an_identity_that_mixes_features_and_ids_is_refused(
    part: str, change: dict[str, Any], problem: str
) -> None:
    identity = identity_of()
    identity[part] = identity[part] | change
    with pytest.raises(CacheError, match=f"not the identity of a feature set: .*{problem}"):
        parse_identity(identity)


@pytest.mark.parametrize("lacking", ["tokenizer", "max_length", "vocabulary_size", "pad_id"])
def test_the_encoder_of_ids_has_to_say_what_they_are(lacking: str) -> None:
    identity = identity_of()
    del identity["encoder"][lacking]
    with pytest.raises(CacheError, match=f"{lacking}: Field required"):
        parse_identity(identity)


def test_a_set_of_features_has_the_key_that_it_had_before_there_were_ids(toy_identity: Any) -> None:
    """Computed by the release before; a change would orphan every cache."""
    identity = toy_identity(precision="fp32", batch_size=64)
    assert identity_key(identity) == "2f1ee8f5d97860e24f7f2ca78b69b6a494a7d502926a2396f076169736431b1e"
    assert parse_identity(identity).tokens is None


def test_features_are_no_tokens(write_toy: Any) -> None:
    features = FeatureSet.open(write_toy())
    assert not features.holds_tokens
    assert features.vocabulary_size is None
