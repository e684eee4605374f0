"""Writing: what is checked, what resumes, what is mended, who may write."""

import os
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from align_cache.errors import BusyError, CacheError, NonFiniteError, ShapeError
from align_cache.store import FeatureSet, FeatureSetWriter, find, is_complete
from align_cache.store.shard import open_shard


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def writer(cache_dir, toy_identity):
    with FeatureSetWriter(cache_dir, toy_identity(rows=3, shard_rows=3), untrained=False) as writer:
        yield writer


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_resumed_set_has_the_bytes_of_an_uninterrupted_one(write_toy, cache_dir, stop):
    reference = contents(folder := write_toy())
    write_toy(stop=stop, finish=False, overwrite=True)
    assert not (folder / "manifest.json").exists()
    assert contents(write_toy()) == reference


def test_provenance_is_recorded_beside_the_manifest_and_not_in_it(write_toy):
    folder = write_toy()
    assert find(folder.parents[2])[0].provenance() == {"host": "toy"}
    assert b"host" not in (folder / "manifest.json").read_bytes()


@pytest.mark.parametrize(("rows", "shard_rows"), [(1, 1), (1, 4), (4, 4), (5, 4), (9, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_one_row_full_and_partial_shards_come_back(
    write_toy, toy_identity, unit_rows, rows, shard_rows, dtype
):
    features = FeatureSet.open(write_toy(toy_identity(rows=rows, shard_rows=shard_rows, dtype=dtype)))
    np.testing.assert_array_equal(features.array(), unit_rows(rows).astype(dtype))
    assert features.sample_ids.tolist() == [f"image-{row}" for row in range(rows)]
    assert features.dtype == np.dtype(dtype)


def test_a_shard_whose_samples_are_all_skipped_is_written_and_counted(cache_dir, toy_identity, unit_rows):
    identity = toy_identity(rows=4, shard_rows=2)
    with FeatureSetWriter(cache_dir, identity, untrained=False) as writer:
        gone = [("a", "half a JPEG"), ("b", "no file")]
        none = np.zeros((0, 5), np.float32)
        writer.write_shard(0, features=none, sample_id=[], label=[], skipped=gone, counts={"skipped": 2})
        writer.write_shard(1, features=unit_rows(1), sample_id=["c"], label=[4], skipped=[("d", "ä")],
                           counts={"skipped": 1, "empty": 0})  # fmt: skip
        manifest = writer.finish({})
    assert manifest.skipped == (*gone, ("d", "ä"))
    assert manifest.counts == {"skipped": 3, "empty": 0}
    features = FeatureSet.open(writer.folder)
    assert (features.rows, features.labels.tolist(), features.sample_ids.tolist()) == (1, [4], ["c"])
    assert [len(shard) for shard in features.shards] == [0, 1]
    assert features.take(np.array([0, 0])).shape == (2, 5)


def test_a_set_with_every_sample_skipped_is_a_set_without_rows(cache_dir, toy_identity):
    with FeatureSetWriter(cache_dir, toy_identity(rows=1), untrained=False) as writer:
        writer.write_shard(0, features=np.zeros((0, 5), np.float32), sample_id=[], skipped=[("a", "why")])
        writer.finish({})
    features = FeatureSet.open(writer.folder)
    assert (features.rows, features.sample_ids.tolist(), features.labels) == (0, [], None)
    assert features.array().shape == features.take(np.array([], int)).shape == (0, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_naming_the_sample(writer, unit_rows, value):
    features = unit_rows(3)
    features[1, 2] = value
    with pytest.raises(NonFiniteError, match="sample 'b' has NaN or infinity"):
        writer.write_shard(0, features=features, sample_id=["a", "b", "c"])


@pytest.mark.parametrize("scale", [0.0, 0.99, 1.01, 1e30])
def test_rows_that_are_not_unit_norm_are_refused_naming_the_sample(writer, unit_rows, scale):
    features = unit_rows(3)
    features[2] *= scale
    with pytest.raises(CacheError, match=r"sample .c. has norm .* as given, expected 1"):
        writer.write_shard(0, features=features, sample_id=["a", "b", "c"])


def test_rows_that_lose_their_norm_in_the_cast_are_refused(writer):
    # 0.2584 lies between two halves 2.4e-4 apart and rounds up: 9e-4 too long as float32, 1.3e-3 as float16.
    features = np.full((3, 15), (1 + 9e-4) / np.sqrt(15), np.float32)
    with pytest.raises(CacheError, match=r"sample 'a' has norm 1\.0013\d* as float16, expected 1"):
        writer.write_shard(0, features=features, sample_id=["a", "b", "c"])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"features": np.ones((3, 1))}, ShapeError, "dtype float64, expected float32"),
        ({"features": np.ones(3, np.float32)}, ShapeError, r"shape \(3,\), expected \(3, dim\)"),
        ({"features": np.ones((2, 1), np.float32)}, ShapeError, r"shape \(2, 1\), expected \(3, dim\)"),
        ({"features": np.ones((3, 0), np.float32)}, ShapeError, r"shape \(3, 0\)"),
        ({"sample_id": ["a", "b"]}, CacheError, "2 rows and 0 skipped, expected 3"),
        ({"skipped": [("d", "why")]}, CacheError, "3 rows and 1 skipped, expected 3"),
        ({"sample_id": ["a", None, "c"]}, CacheError, "sample_id of sample None is NoneType"),
        ({"group_id": ["a", "", "c"]}, CacheError, "group_id of sample 'b' is empty"),
        ({"text": ["a", "b", None]}, CacheError, "text of sample 'c' is NoneType"),
        ({"text": ["a", "b"]}, ShapeError, "text has 2 values, expected 3"),
        ({"label": [1, None, 2]}, CacheError, "label of sample 'b' is None, expected an integer"),
        ({"label": [1, 2, True]}, CacheError, "label of sample 'c' is True"),
        ({"label": [1, 2]}, ShapeError, "label has 2 values, expected 3"),
        ({"split": ["train", "x\0", "val"]}, CacheError, "split of sample 'b' holds a NUL"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused_and_leave_nothing(writer, change, error, match):
    good = {"features": np.ones((3, 1), np.float32), "sample_id": ["a", "b", "c"]}
    with pytest.raises(error, match=match):
        writer.write_shard(0, **(good | change))
    assert list(writer.folder.iterdir()) == []
    assert writer.missing == (0,)


def test_a_split_may_be_absent_for_some_rows_and_a_label_for_all(writer, unit_rows):
    writer.write_shard(
        0, features=unit_rows(3), sample_id=list("abc"), split=["val", None, "test"], label=[None] * 3
    )
    writer.finish({})
    features = FeatureSet.open(writer.folder)
    assert features.splits.tolist() == ["val", "", "test"]
    assert features.labels is None


@pytest.mark.parametrize("where", ["one shard", "two shards", "skipped"])
def test_an_id_that_stands_twice_is_refused_by_name(cache_dir, toy_identity, unit_rows, where):
    ids = {
        "one shard": ["x", "x", "b", "c"],
        "two shards": ["a", "x", "x", "c"],
        "skipped": ["a", "b", "c", "x"],
    }[where]
    identity = toy_identity(rows=5, shard_rows=2)
    with FeatureSetWriter(cache_dir, identity, untrained=False) as writer:
        writer.write_shard(0, features=unit_rows(2), sample_id=ids[:2])
        writer.write_shard(1, features=unit_rows(2), sample_id=ids[2:])
        last = ("x" if where == "skipped" else "d", "why")
        writer.write_shard(2, features=unit_rows(0), sample_id=[], skipped=[last])
        with pytest.raises(CacheError, match="sample_id 'x' stands twice"):
            writer.finish({})


def test_shards_of_different_dim_or_columns_are_refused(cache_dir, toy_identity, unit_rows):
    with FeatureSetWriter(cache_dir, toy_identity(rows=6, shard_rows=2), untrained=False) as writer:
        writer.write_shard(0, features=unit_rows(2), sample_id=["a", "b"], label=[0, 1])
        with pytest.raises(CacheError, match=r"shard 1 .* has dim 4, the shards before it 5"):
            writer.write_shard(1, features=unit_rows(2, 4), sample_id=["c", "d"], label=[0, 1])
        with pytest.raises(CacheError, match=r"has the columns \[\], the shards before it \['label'\]"):
            writer.write_shard(1, features=unit_rows(2), sample_id=["c", "d"])


def test_a_shard_is_written_once_and_finish_wants_all(writer, unit_rows):
    with pytest.raises(CacheError, match="still misses 1 of 1 shards"):
        writer.finish({})
    writer.write_shard(0, features=unit_rows(3), sample_id=list("abc"))
    with pytest.raises(CacheError, match=r"shard 0 .* is not missing"):
        writer.write_shard(0, features=unit_rows(3), sample_id=list("abc"))


def test_a_second_writer_is_told_at_once_who_holds_the_set(writer, cache_dir, toy_identity):
    other = FeatureSetWriter(cache_dir, toy_identity(rows=3, shard_rows=3), untrained=False)
    with pytest.raises(BusyError, match=f"pid {os.getpid()} on {re.escape(socket.gethostname())}"), other:
        pytest.fail("two writers hold one set")


def test_leaving_by_an_error_releases_the_set_and_keeps_the_whole_shards(write_toy, cache_dir, toy_identity):
    write_toy(stop=1, finish=False)
    with (
        pytest.raises(RuntimeError, match="model"),
        FeatureSetWriter(cache_dir, toy_identity(), untrained=True),
    ):
        raise RuntimeError("model")
    with FeatureSetWriter(cache_dir, toy_identity(), untrained=True) as writer:
        assert writer.missing == (1, 2)


def test_two_sets_of_one_dataset_are_written_at_once(cache_dir, toy_identity):
    one = FeatureSetWriter(cache_dir, toy_identity(), untrained=True)
    other = FeatureSetWriter(cache_dir, toy_identity(seed=1), untrained=True)
    with one, other:
        assert one.folder != other.folder


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif how == "zero":
        path.write_bytes(bytes(len(data)))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "link":
        path.rename(path.parent.parent / "elsewhere.h5")
        path.symlink_to(path.parent.parent / "elsewhere.h5")
    elif how == "swap":
        path.write_bytes(path.with_name("shard-00000.h5").read_bytes())


@pytest.mark.parametrize("how", ["delete", "truncate", "flip", "zero", "empty", "link", "swap"])
def test_only_the_damaged_shard_is_made_again(write_toy, cache_dir, toy_identity, how):
    folder = write_toy()
    reference = contents(folder)
    damage(folder / "shard-00001.h5", how)
    assert is_complete(cache_dir, toy_identity()) is None
    with FeatureSetWriter(cache_dir, toy_identity(), untrained=True) as writer:
        assert writer.missing == (1,)
        assert len(writer.notes) == (how != "delete")
        assert not (folder / "manifest.json").exists()
    write_toy()
    assert contents(folder) == reference
    assert is_complete(cache_dir, toy_identity()) is not None


def test_a_shard_of_another_set_is_not_taken_for_ones_own(write_toy, cache_dir, toy_identity):
    stranger = write_toy(toy_identity(seed=1)) / "shard-00000.h5"
    folder = write_toy()
    reference = contents(folder)
    (folder / "shard-00000.h5").write_bytes(stranger.read_bytes())
    with FeatureSetWriter(cache_dir, toy_identity(), untrained=True) as writer:
        assert writer.missing == (0,)
        assert "its key is" in writer.notes[0]
    write_toy()
    assert contents(folder) == reference


@pytest.mark.parametrize("data", [b"", b"{}", None])
def test_a_lost_or_torn_manifest_is_derived_again_from_the_shards(write_toy, cache_dir, toy_identity, data):
    folder = write_toy()
    reference = contents(folder)
    (folder / "manifest.json").unlink() if data is None else (folder / "manifest.json").write_bytes(data)
    assert is_complete(cache_dir, toy_identity()) is None
    with FeatureSetWriter(cache_dir, toy_identity(), untrained=True) as writer:
        assert writer.missing == ()
        writer.finish({"host": "toy"})
    assert contents(folder) == reference


def test_what_a_killed_writer_left_half_written_is_swept(write_toy, cache_dir, toy_identity):
    folder = write_toy(stop=1, finish=False)
    (folder / ".shard-00001.h5.abc123.tmp").write_bytes(b"half")
    write_toy()
    assert not list(folder.glob(".*"))


def test_a_folder_where_a_shard_should_be_is_never_removed(write_toy, cache_dir, toy_identity):
    folder = write_toy(stop=0, finish=False)
    (folder / "shard-00000.h5").mkdir()
    with (
        pytest.raises(CacheError, match="cannot write below"),
        FeatureSetWriter(cache_dir, toy_identity(), untrained=True),
    ):
        pytest.fail("entered")
    assert (folder / "shard-00000.h5").is_dir()


def test_too_little_space_is_refused_before_the_work(writer, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(CacheError, match=r"needs about .* MB, the disk has 1\.0 MB free"):
        writer.check_space(768)


def test_overwrite_begins_anew(write_toy):
    folder = write_toy()
    write_toy(overwrite=True, stop=0, finish=False)
    assert list(folder.iterdir()) == []


def test_complete_means_this_identity_and_whole(write_toy, cache_dir, toy_identity):
    assert is_complete(cache_dir, toy_identity()) is None
    write_toy(finish=False)
    assert is_complete(cache_dir, toy_identity()) is None
    write_toy()
    assert is_complete(cache_dir, toy_identity()).rows == 10
    assert is_complete(cache_dir, toy_identity(seed=1)) is None


def test_every_shard_of_a_finished_set_is_stamped_with_its_key_and_place(write_toy):
    folder = write_toy()
    shards = [open_shard(path) for path in sorted(folder.glob("*.h5"))]
    assert [shard.index for shard in shards] == [0, 1, 2]
    assert {shard.key[:8] for shard in shards} == {folder.name[-8:]}
