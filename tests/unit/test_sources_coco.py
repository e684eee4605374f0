"""COCO captions in the layouts that people have on disk."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from align_cache.errors import SampleError, SourceError, UsageError
from align_cache.sources import open_source
from align_cache.sources.base import Source

IMAGES = {"train": {"000000000009.jpg": 9, "000000000025.jpg": 25}, "val": {"000000000139.jpg": 139}}


def said(number: int, i: int) -> str:
    return f"Caption {i} of image {number}."


def captions_json(split: str, *, count: int = 5) -> dict[str, Any]:
    """The captions as COCO lists them: not sorted by image, the last image first."""
    numbers = list(IMAGES[split].values())
    return {
        "info": {"year": 2017},
        "images": [{"id": number, "file_name": name, "height": 1} for name, number in IMAGES[split].items()],
        "annotations": [
            {"id": 1000 - 10 * number - i, "image_id": number, "caption": f" {said(number, i)}\n"}
            for i in range(count)
            for number in reversed(numbers)
        ],
    }


def put_coco(
    folder: Path, *, annotations: str = "annotations", images: str = ".", year: str = "2017"
) -> Path:
    (folder / annotations).mkdir(parents=True, exist_ok=True)
    for split, names in IMAGES.items():
        (folder / annotations / f"captions_{split}{year}.json").write_text(json.dumps(captions_json(split)))
        place = folder / images / f"{split}{year}"
        place.mkdir(parents=True)
        for name in names:
            (place / name).write_bytes(b"JPEG " + name.encode())
    return folder


def open_coco(folder: Path) -> Source:
    return open_source("coco", data_dir=folder)


@pytest.mark.parametrize("year", ["2017", "2014"])
@pytest.mark.parametrize("images", [".", "images"])
@pytest.mark.parametrize("annotations", [".", "annotations"])
def test_every_layout_gives_the_same_source(tmp_path: Path, annotations: str, images: str, year: str) -> None:
    source = open_coco(put_coco(tmp_path, annotations=annotations, images=images, year=year))
    assert (source.name, source.revision) == ("coco", "local")
    assert [(image.sample_id, image.split) for image in source.images] == [
        (f"train{year}/000000000009.jpg", "train"),
        (f"train{year}/000000000025.jpg", "train"),
        (f"val{year}/000000000139.jpg", "val"),
    ]
    assert source.read_image(2) == b"JPEG 000000000139.jpg"
    assert [
        (c.sample_id, c.text, c.split)
        for c in source.captions
        if c.group_id == f"train{year}/000000000025.jpg"
    ] == [(f"train{year}/000000000025.jpg#{i}", said(25, i), "train") for i in range(5)]
    assert source.notes[:2] == (f"read as captions_train{year}.json", f"read as captions_val{year}.json")


def test_karpathys_split_is_taken_where_it_is_there(tmp_path: Path) -> None:
    put_coco(tmp_path, year="2014")
    splits = {"000000000009.jpg": ("train2014", "restval"), "000000000025.jpg": ("train2014", "train"),
              "000000000139.jpg": ("val2014", "test")}  # fmt: skip
    images = [
        {"filename": name, "filepath": folder, "split": split, "cocoid": 1, "sentences": [{"raw": "A dog."}]}
        for name, (folder, split) in splits.items()
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    source = open_coco(tmp_path)
    assert [(image.sample_id, image.split) for image in source.images] == [
        ("train2014/000000000009.jpg", "train"),
        ("train2014/000000000025.jpg", "train"),
        ("val2014/000000000139.jpg", "test"),
    ]
    assert source.notes[0] == "read as dataset_coco.json"


def test_a_split_whose_images_were_not_fetched_is_left_out_and_said(tmp_path: Path) -> None:
    shutil.rmtree(put_coco(tmp_path) / "train2017")
    source = open_coco(tmp_path)
    assert {image.split for image in source.images} == {"val"}
    assert "captions_train2017.json is left out: there is no folder train2017 of its images" in source.notes


def test_a_missing_image_is_named_with_the_counts(tmp_path: Path) -> None:
    (put_coco(tmp_path) / "train2017" / "000000000025.jpg").unlink()
    with pytest.raises(
        SourceError, match=r"1 of 3 listed images are not in .*, the first is train2017/0+25.jpg"
    ):
        open_coco(tmp_path)


def test_images_without_captions_are_left_out_and_counted(tmp_path: Path) -> None:
    put_coco(tmp_path)
    content = captions_json("train")
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 9]
    (tmp_path / "annotations" / "captions_train2017.json").write_text(json.dumps(content))
    source = open_coco(tmp_path)
    assert len(source.images) == 2
    assert "1 images have no captions: left out" in source.notes


def test_four_or_seven_captions_are_kept(tmp_path: Path) -> None:
    put_coco(tmp_path)
    (tmp_path / "annotations" / "captions_train2017.json").write_text(
        json.dumps(captions_json("train", count=4))
    )
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(captions_json("val", count=7)))
    assert len(open_coco(tmp_path).captions) == 2 * 4 + 7


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"images": [{"id": 9, "file_name": "a.jpg"}] * 2}, "1 image ids are listed more than once"),
        ({"annotations": [{"image_id": 7, "caption": "A."}]},
         "1 captions are of images that it does not list, the first of 7"),
        ({"images": [{"id": 9}]}, "is not COCO's layout: KeyError 'file_name'"),
        ({"images": [{"id": 9, "file_name": 5}]}, "is not COCO's layout: TypeError file_name 5"),
        ({"images": [{"id": [], "file_name": "a.jpg"}]}, "is not COCO's layout: TypeError"),
        ({"annotations": [3]}, "is not COCO's layout: TypeError"),
        ({"images": [{"id": 9, "file_name": "../../secret.jpg"}],
          "annotations": [{"image_id": 9, "caption": "A."}]},
         "is not a plain path below the image folder"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    put_coco(tmp_path)
    file = tmp_path / "annotations" / "captions_train2017.json"
    file.write_text(json.dumps(captions_json("train") | change))
    with pytest.raises(SourceError, match=re.escape(what)):
        open_coco(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}'])
def test_json_of_another_layout_is_refused(tmp_path: Path, text: str) -> None:
    put_coco(tmp_path)
    (tmp_path / "annotations" / "captions_val2017.json").write_text(text)
    with pytest.raises(SourceError, match=r"captions_val2017.json is not COCO's layout"):
        open_coco(tmp_path)


def test_a_caption_that_is_no_text_is_named(tmp_path: Path) -> None:
    put_coco(tmp_path)
    content = captions_json("val", count=1)
    content["annotations"][0]["caption"] = None
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    with pytest.raises(SampleError, match=r"caption val2017/000000000139.jpg#0 is missing"):
        open_coco(tmp_path)


def test_a_folder_without_coco_is_answered_with_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds neither captions_train2017.json nor") as caught:
        open_coco(tmp_path)
    assert "train2017.zip" in str(caught.value.hint)
    for split in IMAGES:
        shutil.rmtree(put_coco(tmp_path / split) / "train2017")
        shutil.rmtree(tmp_path / split / "val2017")
        with pytest.raises(SourceError, match="holds captions and no folder train2017 or val2017 of images"):
            open_coco(tmp_path / split)


def test_coco_is_not_on_the_hub() -> None:
    with pytest.raises(UsageError, match="coco is read from disk"):
        open_source("coco")
    with pytest.raises(UsageError, match="coco takes no --revision"):
        open_source("coco", revision="main")
