"""The hub's parquet files: splits, ids, captions, and images read by row group from several threads."""

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align_cache.errors import SampleError, SourceError
from align_cache.sources import hub, open_source
from align_cache.sources.base import Source
from align_cache.sources.parquet import ParquetFile, find_parquet, parts_by_split


def image(name: str, *, path: str | None = None) -> dict[str, Any]:
    return {"bytes": b"JPEG " + name.encode(), "path": path}


def write(path: Path, columns: dict[str, Any], *, row_group: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group)


def numbered(first: int, count: int, **columns: Any) -> dict[str, Any]:
    names = [f"{i}.jpg" for i in range(first, first + count)]
    return {
        "image": [image(name) for name in names],
        "caption": [[f"Caption {i} of {name}" for i in range(5)] for name in names],
        "filename": names,
        **columns,
    }


def open_flickr30k(folder: Path) -> Source:
    return open_source("flickr30k", data_dir=folder)


def test_parts_of_splits_are_joined_in_order(tmp_path: Path) -> None:
    write(tmp_path / "data" / "test-00000-of-00001.parquet", numbered(20, 2))
    write(tmp_path / "data" / "train-00001-of-00002.parquet", numbered(5, 4))
    write(tmp_path / "data" / "train-00000-of-00002.parquet", numbered(0, 5))
    write(tmp_path / "data" / "validation-00000-of-00001-0123abcd.parquet", numbered(10, 1))
    source = open_flickr30k(tmp_path)
    names = [f"{i}.jpg" for i in (*range(9), 10, 20, 21)]
    assert [sample.sample_id for sample in source.images] == names
    assert [sample.split for sample in source.images] == ["train"] * 9 + ["val"] + ["test"] * 2
    assert [source.read_image(i) for i in range(12)] == [b"JPEG " + name.encode() for name in names]
    assert source.captions[5].text == "Caption 0 of 1.jpg"
    assert source.captions[-1].sample_id == "21.jpg#4"
    assert source.notes[0] == f"read as parquet files: {tmp_path / 'data'}"


def test_a_split_column_outweighs_the_file_name(tmp_path: Path) -> None:
    write(tmp_path / "test-00000-of-00001.parquet", numbered(0, 3, split=["train", "val", "test"]))
    assert [sample.split for sample in open_flickr30k(tmp_path).images] == ["train", "val", "test"]


def test_a_row_whose_split_is_null_is_in_none(tmp_path: Path) -> None:
    write(tmp_path / "test-00000-of-00001.parquet", numbered(0, 3, split=["train", None, "test"]))
    assert [sample.split for sample in open_flickr30k(tmp_path).images] == ["train", None, "test"]


@pytest.mark.parametrize(
    ("captions", "found"), [(["one", None], "missing"), ([["one"], None], "missing"), ([1, 2], "int")]
)
def test_a_row_without_a_caption_in_text_is_named(tmp_path: Path, captions: list[Any], found: str) -> None:
    write(tmp_path / "train-00000-of-00001.parquet", numbered(0, 2, caption=captions))
    with pytest.raises(SampleError, match=rf"caption [01].jpg#0 is {found}"):
        open_flickr30k(tmp_path)


def test_one_split_for_everything_is_said(tmp_path: Path) -> None:
    write(tmp_path / "test-00000-of-00001.parquet", numbered(0, 3))
    assert "every image is in split test" in open_flickr30k(tmp_path).notes


def test_the_converters_branch_is_found_by_configuration_and_split(tmp_path: Path) -> None:
    write(tmp_path / "TEST" / "test" / "0000.parquet", numbered(0, 2))
    write(tmp_path / "TEST" / "test" / "0001.parquet", numbered(2, 2))
    source = open_flickr30k(tmp_path)
    assert [(sample.sample_id, sample.split) for sample in source.images] == [
        (f"{i}.jpg", "test") for i in range(4)
    ]


def test_five_caption_columns_and_no_file_names_give_numbered_ids(tmp_path: Path) -> None:
    columns = {f"caption_{i}": [f"{i} of a", f"{i} of b"] for i in range(5)}
    write(tmp_path / "train-00000-of-00001.parquet", {"image": [image("a"), image("b")], **columns})
    source = open_source("flickr8k", data_dir=tmp_path)
    assert [sample.sample_id for sample in source.images] == ["train/00000", "train/00001"]
    assert [c.text for c in source.captions if c.group_id == "train/00001"] == [f"{i} of b" for i in range(5)]


def test_the_file_name_kept_with_an_image_is_its_id(tmp_path: Path) -> None:
    rows = [image("a", path="x/a.jpg"), image("b", path="b.jpg")]
    write(tmp_path / "train-00000-of-00001.parquet", {"image": rows, "caption": ["one", "two"]})
    source = open_source("flickr8k", data_dir=tmp_path)
    assert [caption.sample_id for caption in source.captions] == ["a.jpg#0", "b.jpg#0"]


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001.parquet", numbered(0, 3))
    write(tmp_path / "test-00000-of-00001.parquet", numbered(2, 3))
    with pytest.raises(SourceError, match=r"1 images are there more than once, the first is 2.jpg"):
        open_flickr30k(tmp_path)


@pytest.mark.parametrize("caption", [[None], [b"bytes"]])
def test_a_caption_that_is_no_text_is_named(tmp_path: Path, caption: list[Any]) -> None:
    kind = pa.list_(pa.binary() if caption[0] else pa.string())
    columns = {"image": [image("a")], "filename": ["a.jpg"], "caption": pa.array([caption], type=kind)}
    write(tmp_path / "train-00000-of-00001.parquet", columns)
    with pytest.raises(SampleError, match=r"caption a.jpg#0 is (missing|bytes)"):
        open_flickr30k(tmp_path)


def test_a_missing_part_of_a_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00003.parquet", numbered(0, 3))
    with pytest.raises(SourceError, match="split train has 1 of 3 files"):
        open_flickr30k(tmp_path)


def test_two_configurations_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "train" / "0000.parquet", numbered(0, 3))
    with pytest.raises(SourceError, match="split train has files in several folders"):
        open_flickr30k(tmp_path)


def test_files_with_other_columns_than_their_neighbours_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", numbered(0, 3))
    write(tmp_path / "train-00001-of-00002.parquet", numbered(3, 3, split=["train"] * 3))
    with pytest.raises(SourceError, match=r"train-00001-of-00002.parquet has columns"):
        open_flickr30k(tmp_path)


@pytest.mark.parametrize("missing", ["image", "caption"])
def test_a_file_without_images_or_captions_is_refused(tmp_path: Path, missing: str) -> None:
    columns = numbered(0, 3)
    del columns[missing]
    write(tmp_path / "train-00000-of-00001.parquet", columns)
    with pytest.raises(SourceError, match=r"none of them image or img|no caption among them"):
        open_flickr30k(tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    write(path, numbered(0, 3))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match="is not a readable parquet file"):
        open_flickr30k(tmp_path)


def test_damaged_image_bytes_are_a_sample_error_that_names_the_image(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    names = [f"{i}.jpg" for i in range(6)]
    columns = {
        "caption": [[name] for name in names],
        "filename": names,
        "image": [image(name) for name in names],
    }
    pq.write_table(pa.table(columns), path, row_group_size=3, compression="zstd")
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(2)
    assert chunk.path_in_schema == "image.bytes"
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[first : first + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    source = open_flickr30k(tmp_path)
    assert source.read_image(2) == b"JPEG 2.jpg"
    with pytest.raises(SampleError, match=r"4.jpg: row 4 of train-00000-of-00001.parquet cannot be read"):
        source.read_image(4)


def test_a_row_without_an_image_is_a_sample_error(tmp_path: Path) -> None:
    columns = numbered(0, 3, image=[image("a"), None, {"bytes": None, "path": "elsewhere.jpg"}])
    write(tmp_path / "train-00000-of-00001.parquet", columns)
    source = open_flickr30k(tmp_path)
    for row in (1, 2):
        with pytest.raises(SampleError, match=rf"{row}.jpg: row {row} of .* holds no image"):
            source.read_image(row)


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    marks = []
    for columns in (numbered(0, 3), numbered(0, 3), numbered(0, 3, image=[image("ä")] * 3)):
        write(path, columns)
        marks.append([sample.fingerprint for sample in open_flickr30k(tmp_path).images])
    assert marks[0] == marks[1] != marks[2]
    assert len(set(marks[0])) == 3


def test_the_footer_behind_a_fingerprint_is_the_one_pyarrow_reads(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write(path, numbered(0, 3))
    data = path.read_bytes()
    (footer_bytes,) = struct.unpack("<I", data[-8:-4])
    assert footer_bytes == pq.read_metadata(path).serialized_size
    assert len(ParquetFile(path).fingerprint()) == 16


def test_threads_reading_in_any_order_get_the_right_images(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", numbered(0, 37), row_group=5)
    write(tmp_path / "train-00001-of-00002.parquet", numbered(37, 26), row_group=7)
    source = open_flickr30k(tmp_path)
    order = [(17 * i) % 63 for i in range(63 * 4)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read_image, order)) == [f"JPEG {i}.jpg".encode() for i in order]


def test_a_row_group_is_read_once_for_neighbouring_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.parquet"
    write(path, numbered(0, 12), row_group=4)
    file = ParquetFile(path)
    read, groups = file._file.read_row_group, []
    monkeypatch.setattr(
        file,
        "_file",
        type("Spy", (), {"read_row_group": lambda _, g, **k: (groups.append(g), read(g, **k))[1]})(),
    )
    for row in (0, 1, 4, 3, 5, 8, 7, 11):
        assert file.image("image", row, sample_id="x") == f"JPEG {row}.jpg".encode()
    assert groups == [0, 1, 2]


def test_an_image_column_of_plain_bytes_is_read_too(tmp_path: Path) -> None:
    columns = numbered(0, 3, image=[b"A", b"B", b"C"])
    write(tmp_path / "train-00000-of-00001.parquet", columns)
    assert open_flickr30k(tmp_path).read_image(1) == b"B"


def test_the_hubs_copy_carries_its_commit_as_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data" / "train-00000-of-00001.parquet", numbered(0, 3))
    asked: list[dict[str, Any]] = []

    def fetch_snapshot(repo_id: str, **arguments: Any) -> tuple[Path, str]:
        asked.append({"repo_id": repo_id, **arguments})
        return tmp_path, "c" * 40

    monkeypatch.setattr(hub, "fetch_snapshot", fetch_snapshot)
    source = open_source("flickr30k", revision="v2")
    assert (source.revision, len(source.images)) == ("c" * 40, 3)
    assert asked == [
        {
            "repo_id": "umaru97/flickr30k_train_val_test",
            "repo_type": "dataset",
            "revision": "v2",
            "allow_patterns": ["*.parquet"],
        }
    ]


def test_a_folder_without_parquet_files_has_none(tmp_path: Path) -> None:
    assert find_parquet(tmp_path) == []
    with pytest.raises(SourceError, match="no parquet files"):
        parts_by_split([])
