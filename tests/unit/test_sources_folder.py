"""Anyone's folder: tables of captions and labels, or a folder per class."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from align_cache.errors import SourceError, UsageError
from align_cache.sources import open_source
from align_cache.sources.base import Source


def put_images(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"IMAGE " + name.encode())


def opened(folder: Path) -> Source:
    return open_source("folder", data_dir=folder)


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("image_column", ["file_name", "image", "path"])
@pytest.mark.parametrize("caption_column", ["caption", "text"])
def test_a_csv_of_captions_takes_one_row_for_each_caption(
    tmp_path: Path, image_column: str, caption_column: str
) -> None:
    put_images(tmp_path, ["b.png", "sub/a.jpg"])
    (tmp_path / "captions.csv").write_text(
        f"{image_column},{caption_column},split\n"
        'sub/a.jpg,One,train\nb.png,"Two, with a comma",dev\nsub/a.jpg,,train\n'
    )
    source = opened(tmp_path)
    assert [(s.sample_id, s.split, s.label) for s in source.images] == [
        ("b.png", "val", None),
        ("sub/a.jpg", "train", None),
    ]
    assert [(c.sample_id, c.text) for c in source.captions] == [
        ("b.png#0", "Two, with a comma"), ("sub/a.jpg#0", "One"), ("sub/a.jpg#1", ""),
    ]  # fmt: skip
    assert source.read_image(1) == b"IMAGE sub/a.jpg"
    assert source.notes == (
        f"read as captions.csv with images in {tmp_path}",
        "1 of 3 captions are empty; they are kept",
    )


@pytest.mark.parametrize("table", ["captions.jsonl", "metadata.jsonl"])
def test_json_lines_may_hold_one_caption_or_a_list(tmp_path: Path, table: str) -> None:
    put_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    rows = ({"file_name": "b.jpg", "text": "Alone"}, {"file_name": "./a.jpg", "captions": ["One", "Two"]})
    (tmp_path / table).write_text(jsonl(*rows))
    source = opened(tmp_path)
    assert [(c.sample_id, c.text) for c in source.captions] == [
        ("a.jpg#0", "One"),
        ("a.jpg#1", "Two"),
        ("b.jpg#0", "Alone"),
    ]
    assert source.read_image(0) == b"IMAGE a.jpg"


def test_captions_and_labels_may_come_from_two_tables(tmp_path: Path) -> None:
    put_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,One\nb.jpg,Two\n")
    (tmp_path / "labels.csv").write_text("image,label,split\na.jpg,dog,train\nb.jpg,cat,test\n")
    source = opened(tmp_path)
    assert source.label_names == ("cat", "dog")
    assert [(s.label, s.split) for s in source.images] == [(1, "train"), (0, "test")]
    assert [c.split for c in source.captions] == ["train", "test"]


def test_labels_that_are_all_numbers_stay_as_they_are(tmp_path: Path) -> None:
    put_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "labels.jsonl").write_text(
        jsonl(
            *({"image": name, "label": label} for name, label in [("a.jpg", 7), ("b.jpg", 0), ("c.jpg", "3")])
        )
    )
    source = opened(tmp_path)
    assert source.label_names == ()
    assert [s.label for s in source.images] == [7, 0, 3]


def test_without_a_table_the_folder_is_the_class(tmp_path: Path) -> None:
    put_images(tmp_path, ["dog/1.jpg", "cat/2.PNG", "cat/readme.txt", "dog/3.webp"])
    source = opened(tmp_path)
    assert source.label_names == ("cat", "dog")
    assert [(s.sample_id, s.label, s.split) for s in source.images] == [
        ("cat/2.PNG", 0, None), ("dog/1.jpg", 1, None), ("dog/3.webp", 1, None),
    ]  # fmt: skip


def test_a_number_that_does_not_fit_a_label_is_a_name(tmp_path: Path) -> None:
    put_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "labels.csv").write_text(f"image,label\na.jpg,{2**63}\nb.jpg,7\n")
    source = opened(tmp_path)
    assert source.label_names == ("7", str(2**63))
    assert [s.label for s in source.images] == [1, 0]


def test_labels_for_some_images_only_are_refused_before_any_model_runs(tmp_path: Path) -> None:
    put_images(tmp_path, ["cat/b.png", "top.png"])
    with pytest.raises(SourceError, match=r"1 of 2 images have no label, the first is top\.png"):
        opened(tmp_path)
    (tmp_path / "labels.csv").write_text("image,label\ncat/b.png,cat\ntop.png,\n")
    with pytest.raises(SourceError, match="1 of 2 images have no label"):
        opened(tmp_path)


def test_a_file_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"IMAGE")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(SourceError, match=r"udcff\.png' is not UTF-8"):
        opened(tmp_path)


def test_top_folders_named_like_splits_are_splits(tmp_path: Path) -> None:
    put_images(tmp_path, ["train/dog/1.jpg", "validation/cat/2.jpg", "test/dog/3.jpg"])
    source = opened(tmp_path)
    assert [(s.sample_id, s.label, s.split) for s in source.images] == [
        ("test/dog/3.jpg", 1, "test"), ("train/dog/1.jpg", 1, "train"), ("validation/cat/2.jpg", 0, "val"),
    ]  # fmt: skip


def test_bare_images_have_neither_label_nor_caption(tmp_path: Path) -> None:
    put_images(tmp_path, ["1.jpg", "2.jpg"])
    source = opened(tmp_path)
    assert [s.label for s in source.images] == [None, None]
    assert (source.label_names, source.captions) == ((), ())


CAPTION = "image,caption\n"
ONE = '{"image": "a.jpg", "caption": '


@pytest.mark.parametrize(
    ("table", "text", "found"),
    [
        ("captions.csv", "name,caption\na.jpg,One\n", "captions.csv row 2 names no image"),
        ("captions.csv", CAPTION + "a.jpg\n", "row 2 has not the columns of the header"),
        ("captions.csv", CAPTION + "a.jpg,One,more\n", "row 2 has not the columns of the header"),
        ("captions.csv", CAPTION + 'a.jpg,"One\n', "captions.csv cannot be read"),
        ("captions.csv", CAPTION + "b.jpg,One\n", "1 of 1 listed images are not in"),
        ("captions.csv", CAPTION + "../a.jpg,One\n", "is not a plain path"),
        ("captions.csv", CAPTION, "no images are listed"),
        ("captions.csv", "image,text,split\na.jpg,1,train\na.jpg,2,test\n", "stands in two splits"),
        ("labels.csv", "image,label\na.jpg,x\na.jpg,x\n", "a.jpg is listed more than once"),
        ("metadata.csv", "image,caption,label\na.jpg,1,x\na.jpg,2,y\n", "has two labels, x and y"),
        (
            "metadata.jsonl",
            '{"image": "a.jpg", "label": NaN}\n',
            "row 1: label is nan, wanted text or a whole",
        ),
        (
            "metadata.jsonl",
            '{"image": "a.jpg", "split": ["train"]}\n',
            r"row 1: split is \['train'\], wanted",
        ),
        ("metadata.jsonl", "[" * 100_000, "metadata.jsonl cannot be read"),
        ("captions.jsonl", ONE, "captions.jsonl cannot be read"),
        ("captions.jsonl", "[1]\n", "row 1 names no image"),
        ("captions.jsonl", '{"image": 3, "caption": "x"}\n', "row 1 names no image"),
        ("captions.jsonl", ONE + "null}\n", "caption a.jpg#0 is missing"),
        ("captions.jsonl", ONE + "NaN}\n", "caption a.jpg#0 is missing"),
        ("captions.jsonl", ONE + '["x", "\\udc00"]}\n', "a.jpg#1 holds half a surrogate"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, table: str, text: str, found: str) -> None:
    put_images(tmp_path, ["a.jpg"])
    (tmp_path / table).write_text(text)
    with pytest.raises(SourceError, match=found):
        opened(tmp_path)


def test_an_image_that_links_out_of_the_folder_is_refused_even_without_a_table(tmp_path: Path) -> None:
    put_images(tmp_path / "data", ["cat/1.jpg"])
    put_images(tmp_path, ["secret.jpg"])
    (tmp_path / "data" / "cat" / "2.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(SourceError, match=r"lead out of .*, the first is cat/2.jpg"):
        opened(tmp_path / "data")


def test_a_linked_folder_is_not_followed(tmp_path: Path) -> None:
    put_images(tmp_path / "data", ["cat/1.jpg"])
    put_images(tmp_path / "elsewhere", ["2.jpg"])
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    assert [s.sample_id for s in opened(tmp_path / "data").images] == ["cat/1.jpg"]


def test_an_empty_folder_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images are listed .* it holds no \.bmp, \.gif") as empty:
        opened(tmp_path)
    assert "captions.csv" in str(empty.value.hint)
    with pytest.raises(UsageError, match="folder reads your own images") as caught:
        open_source("folder")
    assert caught.value.hint == "add --data-dir FOLDER"


def test_a_restricted_source_reads_the_images_it_lists(tmp_path: Path) -> None:
    put_images(tmp_path, ["test/x/1.jpg", "train/x/2.jpg", "train/y/3.jpg", "train/y/4.jpg"])
    source = opened(tmp_path).restricted(splits=["train"], limit=2)
    assert [source.read_image(i) for i in range(2)] == [b"IMAGE train/x/2.jpg", b"IMAGE train/y/3.jpg"]
