"""CIFAR-10 from parquet files and from its pickles, which are never trusted."""

import collections
import io
import json
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from align_cache.errors import SampleError, SourceError
from align_cache.sources import open_source
from align_cache.sources.cifar10 import LABEL_NAMES

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def python2_batch(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """What the original Python 2 program wrote: protocol 2, byte strings, numpy's old module name."""
    out = io.BytesIO()

    def string(text: bytes) -> bytes:
        return (
            b"U" + bytes([len(text)]) + text
            if len(text) < 256
            else b"T" + len(text).to_bytes(4, "little") + text
        )

    def integer(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    out.write(b"\x80\x02}(" + string(b"data"))
    out.write(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        + integer(0)
        + b"\x85"
        + string(b"b")
        + b"tR"
    )
    out.write(b"(" + integer(1) + integer(len(pixels)) + integer(3072) + b"\x86")
    out.write(b"cnumpy\ndtype\n(" + string(b"u1") + integer(0) + integer(1) + b"tR")
    out.write(b"(" + integer(3) + string(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb")
    out.write(b"\x89" + string(pixels.tobytes()) + b"tb")
    out.write(string(b"labels") + b"](" + b"".join(integer(label) for label in labels) + b"e")
    out.write(string(b"batch_label") + string(b"testing") + b"u.")
    return out.getvalue()


@pytest.fixture
def batches(tmp_path: Path) -> tuple[Path, NDArray[np.uint8], list[int]]:
    """A folder with six batches of 4 images, their pixels and labels in order."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(24, 3072), dtype=np.uint8)
    labels = [i % 10 for i in range(24)]
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate(BATCHES):
        rows = slice(4 * i, 4 * i + 4)
        (folder / name).write_bytes(python2_batch(pixels[rows], labels[rows]))
    return folder, pixels, labels


@pytest.mark.parametrize("inside", [False, True])
def test_the_original_pickles_are_read_in_file_order(batches, inside: bool) -> None:
    folder, pixels, labels = batches
    source = open_source("cifar10", data_dir=folder if inside else folder.parent)
    assert [s.sample_id for s in source.images] == [f"train/{i:05d}" for i in range(20)] + [
        f"test/{i:05d}" for i in range(4)
    ]
    assert [s.label for s in source.images] == labels
    assert [s.split for s in source.images] == ["train"] * 20 + ["test"] * 4
    assert source.label_names == LABEL_NAMES
    for row in (0, 7, 23):
        image = source.read_image(row)
        assert isinstance(image, np.ndarray)
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(
            image,
            np.stack([pixels[row, c * 1024 : c * 1024 + 1024].reshape(32, 32) for c in range(3)], axis=2),
        )


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def test_the_stand_in_for_the_original_pickle_is_what_an_ordinary_unpickler_reads(batches) -> None:
    folder, pixels, labels = batches
    batch = pickle.loads((folder / "data_batch_2").read_bytes(), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], pixels[4:8])
    assert batch[b"labels"] == labels[4:8]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_batches_written_again_by_a_later_python_are_read_too(batches, protocol: int) -> None:
    folder, pixels, labels = batches
    batch = {b"data": pixels[:4].copy(), b"labels": labels[:4]}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=protocol))
    if protocol in (2, 5):  # these need _codecs.encode and numpy's _frombuffer: not among the three names
        with pytest.raises(SourceError, match="refused: the pickle asks for"):
            open_source("cifar10", data_dir=folder)
    else:
        assert [s.label for s in open_source("cifar10", data_dir=folder).images][:4] == labels[:4]


def test_fingerprints_are_of_the_pixels(batches) -> None:
    folder, pixels, labels = batches
    before = open_source("cifar10", data_dir=folder).images
    pixels[5, 100] ^= 1
    (folder / "data_batch_2").write_bytes(python2_batch(pixels[4:8], labels[4:8]))
    after = open_source("cifar10", data_dir=folder).images
    assert [i for i in range(24) if before[i].fingerprint != after[i].fingerprint] == [5]


class _Canary:
    """Unpickled by an ordinary unpickler, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_runs_none(batches, tmp_path: Path) -> None:
    folder = batches[0]
    canary = tmp_path / "canary"
    attack = pickle.dumps({b"data": _Canary(canary), b"labels": []})
    pickle.loads(attack)
    assert canary.is_dir(), "the attack has to work on an ordinary unpickler"
    canary.rmdir()
    (folder / "data_batch_3").write_bytes(attack)
    with pytest.raises(SourceError, match=r"data_batch_3: refused: the pickle asks for (posix|nt).mkdir"):
        open_source("cifar10", data_dir=folder)
    assert not canary.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        pickle.dumps({b"data": collections.OrderedDict(), b"labels": []}),
        pickle.dumps({b"data": np.zeros((2, 3072), np.float64), b"labels": [1, 2]}, protocol=3),
        pickle.dumps({b"data": np.array([None, 3], dtype=object), b"labels": [1, 2]}, protocol=3),
        pickle.dumps({b"data": b"x" * 6144, b"labels": [1, 2]}),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=3),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}, protocol=3),
        pickle.dumps({b"data": np.zeros((2, 100), np.uint8), b"labels": [1, 2]}, protocol=3),
        pickle.dumps([1, 2]),
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
        b"cnumpy\ndtype\n(U\x02O8J\x00\x00\x00\x00J\x01\x00\x00\x00tR.",
        b"",
        b"<!DOCTYPE html>",
    ],
)
def test_anything_but_bytes_with_their_labels_is_refused_by_file(batches, pickled: bytes) -> None:
    folder = batches[0]
    (folder / "test_batch").write_bytes(pickled)
    with pytest.raises(SourceError, match=r"cifar10: .*test_batch"):
        open_source("cifar10", data_dir=folder)


def test_a_missing_batch_is_named(batches) -> None:
    folder = batches[0]
    (folder / "data_batch_4").unlink()
    with pytest.raises(SourceError, match="data_batch_4 cannot be read: No such file"):
        open_source("cifar10", data_dir=folder)


def write_parquet(path: Path, labels: list[Any], *, names: tuple[str, ...] | None = None) -> None:
    table = pa.table(
        {"img": [{"bytes": b"PNG %d" % i, "path": None} for i in range(len(labels))], "label": labels}
    )
    if names is not None:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def test_the_hubs_parquet_files_give_the_same_ids(tmp_path: Path) -> None:
    write_parquet(tmp_path / "plain_text" / "train-00000-of-00001.parquet", [3, 9, 0], names=LABEL_NAMES)
    write_parquet(tmp_path / "plain_text" / "test-00000-of-00001.parquet", [5], names=LABEL_NAMES)
    source = open_source("cifar10", data_dir=tmp_path)
    assert [(s.sample_id, s.label, s.split) for s in source.images] == [
        ("train/00000", 3, "train"), ("train/00001", 9, "train"), ("train/00002", 0, "train"),
        ("test/00000", 5, "test"),
    ]  # fmt: skip
    assert source.read_image(3) == b"PNG 0"
    assert source.label_names == LABEL_NAMES


def test_files_of_another_dataset_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [1], names=("zero", "one", "two"))
    with pytest.raises(SourceError, match="has classes"):
        open_source("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("label", [-1, 10, None])
def test_a_label_out_of_range_is_named(tmp_path: Path, label: int | None) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [1, label])
    with pytest.raises(SampleError, match="train/00001 has label"):
        open_source("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("told", ["{", "[]", '{"info": null}'])
def test_a_description_in_no_known_form_is_one_line(tmp_path: Path, told: str) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    write_parquet(path, [1])
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": told}), path)
    with pytest.raises(SourceError, match="describes itself in no known form"):
        open_source("cifar10", data_dir=tmp_path)


def test_an_empty_folder_is_answered_with_both_ways_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds neither cifar-10-batches-py nor parquet files") as caught:
        open_source("cifar10", data_dir=tmp_path)
    assert "cifar-10-python.tar.gz" in str(caught.value.hint)
    assert "hf download uoft-cs/cifar10" in str(caught.value.hint)


def test_the_real_cifar10_opens(real_data: Path) -> None:
    source = open_source("cifar10", data_dir=real_data / "cifar10")
    assert Counter(image.split for image in source.images) == {"train": 5000, "test": 1000}
    data = source.read_image(5999)
    assert isinstance(data, bytes)
    assert data.startswith(b"\x89PNG")
