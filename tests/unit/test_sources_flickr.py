"""Flickr8k and Flickr30k from every layout in which they lie on disks, whole and damaged."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from align_cache.errors import SampleError, SourceError
from align_cache.sources import open_source
from align_cache.sources.base import Source

NAMES = ("1.jpg", "2.jpg", "10.jpg", "3.jpg")
SPLIT_OF = {"1.jpg": "train", "10.jpg": "train", "2.jpg": "val", "3.jpg": "test"}
SPLIT_FILES = {
    "Flickr_8k.trainImages.txt": "10.jpg\n1.jpg\n",
    "Flickr_8k.devImages.txt": "2.jpg\n",
    "Flickr_8k.testImages.txt": "3.jpg\n",
}


def caption(name: str, i: int) -> str:
    return f'Caption {i} of {name}, a "quoted" one | with a bar .'


def put_images(folder: Path, names: tuple[str, ...] = NAMES) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"JPEG " + name.encode())


def put(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def token_file(names: tuple[str, ...] = NAMES) -> str:
    return "".join(f"{name}#{i}\t{caption(name, i)}\n" for name in names for i in range(5))


def captions_csv() -> str:
    rows = [(name, caption(name, i).replace('"', '""')) for name in NAMES for i in range(5)]
    return "image,caption\n" + "".join(f'{name},"{text}"\n' for name, text in rows)


def bar_csv() -> str:
    rows = [f"{name}| {i}| {caption(name, i)}\n" for name in NAMES for i in range(5)]
    return "image_name| comment_number| comment\n" + "".join(rows)


def karpathy_json() -> str:
    names = {"1.jpg": "restval", **{name: split for name, split in SPLIT_OF.items() if name != "1.jpg"}}
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": caption(name, i)} for i in range(5)]}
        for name, split in names.items()
    ]
    return json.dumps({"images": images, "dataset": "flickr"})


SPLIT_NAMES = {"train.txt": "1\n10\n", "val.txt": "2\n", "test.txt": "3\n"}

LAYOUTS = {
    "flickr8k: the original archives": (
        "flickr8k", "Flickr8k_Dataset/Flicker8k_Dataset",
        {"Flickr8k_text/Flickr8k.token.txt": token_file(),
         **{f"Flickr8k_text/{name}": text for name, text in SPLIT_FILES.items()}},
    ),
    "flickr8k: tokens": (
        "flickr8k", "Flicker8k_Dataset", {"Flickr8k.token.txt": token_file(), **SPLIT_FILES},
    ),
    "flickr8k: Kaggle": ("flickr8k", "Images", {"captions.txt": captions_csv(), **SPLIT_FILES}),
    "flickr8k: Karpathy": ("flickr8k", "images", {"dataset_flickr8k.json": karpathy_json()}),
    "flickr30k: Karpathy": ("flickr30k", "flickr30k-images", {"dataset_flickr30k.json": karpathy_json()}),
    "flickr30k: tokens": (
        "flickr30k", "flickr30k-images",
        {"results_20130124.token": token_file(), **SPLIT_NAMES},
    ),
    "flickr30k: Kaggle": (
        "flickr30k", "flickr30k_images/flickr30k_images",
        {"flickr30k_images/results.csv": bar_csv(), **SPLIT_NAMES},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_source(layout: str, tmp_path: Path) -> None:
    name, image_folder, files = LAYOUTS[layout]
    put_images(tmp_path / image_folder)
    put(tmp_path, files)
    source = open_source(name, data_dir=tmp_path)
    assert (source.name, source.revision) == (name, "local")
    assert [(image.sample_id, image.split) for image in source.images] == sorted(SPLIT_OF.items())
    assert [image.fingerprint for image in source.images] == ["10 bytes", "11 bytes", "10 bytes", "10 bytes"]
    assert [source.read_image(i) for i in range(4)] == [
        b"JPEG 1.jpg",
        b"JPEG 10.jpg",
        b"JPEG 2.jpg",
        b"JPEG 3.jpg",
    ]
    assert [(c.sample_id, c.group_id, c.text, c.split) for c in source.captions] == [
        (f"{name}#{i}", name, caption(name, i), SPLIT_OF[name]) for name in sorted(NAMES) for i in range(5)
    ]
    assert source.notes[0].startswith(f"read as {Path(next(iter(files))).name} with images in {tmp_path}")


@pytest.fixture
def classic(tmp_path: Path) -> Path:
    """Flickr8k with its token file, split lists and ``Images/``."""
    put_images(tmp_path / "Images")
    put(tmp_path, {"Flickr8k.token.txt": token_file(), **SPLIT_FILES})
    return tmp_path


def open_classic(folder: Path) -> Source:
    return open_source("flickr8k", data_dir=folder)


def test_kaggles_broken_row_is_repaired_and_said(tmp_path: Path) -> None:
    put_images(tmp_path / "flickr30k_images")
    broken = bar_csv().replace(
        f"10.jpg| 4| {caption('10.jpg', 4)}", "10.jpg| 4   A dog runs across the grass ."
    )
    put(tmp_path, {"results.csv": broken})
    source = open_source("flickr30k", data_dir=tmp_path)
    assert "A dog runs across the grass ." in [caption.text for caption in source.captions]
    assert "results.csv line 16 lacks a separator between number and caption: repaired" in source.notes
    assert any("no image carries a split" in note for note in source.notes)
    assert {image.split for image in source.images} == {None}


@pytest.mark.parametrize("row", ["3.jpg; 5; a dog", "3.jpg| ²| a dog"])
def test_a_row_that_cannot_be_repaired_is_refused_by_line(tmp_path: Path, row: str) -> None:
    put_images(tmp_path / "images")
    (tmp_path / "results.csv").write_text(bar_csv() + row + "\n", encoding="utf-8")
    with pytest.raises(SourceError, match=re.escape(f"results.csv line 22: found {row!r}")):
        open_source("flickr30k", data_dir=tmp_path)


def test_captions_of_images_in_no_split_list_are_left_out_and_counted(classic: Path) -> None:
    with (classic / "Flickr8k.token.txt").open("a") as file:
        file.write("2258277193_586949ec62.jpg.1#0\tA caption whose image does not exist .\n")
    source = open_classic(classic)
    assert len(source.images) == 4
    assert "1 captioned images are in no split list: left out" in source.notes


def test_a_missing_image_is_named_with_the_counts(classic: Path) -> None:
    (classic / "Images" / "2.jpg").unlink()
    with pytest.raises(SourceError, match=r"1 of 4 listed images are not in .*Images, the first is 2.jpg"):
        open_classic(classic)


def test_no_image_at_all_is_answered_with_where_they_belong(classic: Path) -> None:
    shutil.rmtree(classic / "Images")
    with pytest.raises(SourceError, match="none of the 4 listed images lies in") as caught:
        open_classic(classic)
    assert "Flicker8k_Dataset" in str(caught.value.hint)


def test_an_image_in_two_splits_is_refused(classic: Path) -> None:
    put(classic, {"Flickr_8k.testImages.txt": "3.jpg\n1.jpg\n"})
    with pytest.raises(SourceError, match=r"1.jpg stands in two splits, train and test"):
        open_classic(classic)


def test_a_listed_image_without_captions_is_refused(classic: Path) -> None:
    put(classic, {"Flickr_8k.testImages.txt": "3.jpg\n4.jpg\n"})
    with pytest.raises(SourceError, match=r"testImages.txt line 2: '4.jpg' has no captions"):
        open_classic(classic)


def test_a_caption_number_that_is_there_twice_is_refused(classic: Path) -> None:
    put(classic, {"Flickr8k.token.txt": token_file() + "1.jpg#0\tAgain .\n"})
    with pytest.raises(SourceError, match=r"caption 1.jpg#0 is there twice"):
        open_classic(classic)


@pytest.mark.parametrize("line", ["1.jpg#x\ttext", "1.jpg\ttext", "1.jpg#1 text", "#\t"])
def test_a_line_that_is_no_caption_is_refused_by_number(classic: Path, line: str) -> None:
    put(classic, {"Flickr8k.token.txt": token_file() + line + "\n"})
    with pytest.raises(SourceError, match=r"Flickr8k.token.txt line 21: found"):
        open_classic(classic)


def test_captions_in_any_order_and_number_are_sorted_by_image_and_number(classic: Path) -> None:
    lines = [
        f"{name}#{i}\tText {i}\n" for name in NAMES for i in range({"1.jpg": 4, "2.jpg": 6}.get(name, 5))
    ]
    put(classic, {"Flickr8k.token.txt": "".join(reversed(lines))})
    source = open_classic(classic)
    assert Counter(caption.group_id for caption in source.captions)["2.jpg"] == 6
    assert [c.text for c in source.captions if c.group_id == "1.jpg"] == [
        "Text 0",
        "Text 1",
        "Text 2",
        "Text 3",
    ]


def test_empty_and_shared_captions_are_kept_and_counted(classic: Path) -> None:
    text = token_file().replace(caption("1.jpg", 2), "  ").replace(caption("2.jpg", 1), caption("3.jpg", 0))
    put(classic, {"Flickr8k.token.txt": text})
    source = open_classic(classic)
    assert len(source.captions) == 20
    assert "1 of 20 captions are empty; they are kept" in source.notes
    assert "1 captions stand with more than one image each; that caps R@1" in source.notes


def test_a_file_that_is_not_utf8_is_refused_by_byte(classic: Path) -> None:
    (classic / "Flickr8k.token.txt").write_bytes(b"1.jpg#0\tcaf\xe9 .\n")
    with pytest.raises(SourceError, match="is not UTF-8: byte 11 is 0xe9"):
        open_classic(classic)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "a/../b.jpg", "./1.jpg", "a\\b.jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    put_images(tmp_path / "Images")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    put(tmp_path, {"Flickr8k.token.txt": token_file() + f"{name}#0\tA secret .\n"})
    with pytest.raises(SourceError, match="is not a plain path below the image folder"):
        open_classic(tmp_path)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_it_is_not(classic: Path) -> None:
    (classic / "secret.jpg").write_bytes(b"secret")
    images = classic / "Images"
    (images / "2.jpg").unlink()
    (images / "2.jpg").symlink_to(images / "3.jpg")
    assert open_classic(classic).read_image(2) == b"JPEG 3.jpg"
    (images / "2.jpg").unlink()
    (images / "2.jpg").symlink_to(classic / "secret.jpg")
    with pytest.raises(SourceError, match=r"1 images are links that lead out of .*, the first is 2.jpg"):
        open_classic(classic)


def test_an_image_folder_that_is_itself_a_link_works(
    classic: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("disk") / "Images"
    (classic / "Images").rename(elsewhere)
    (classic / "Images").symlink_to(elsewhere)
    assert open_classic(classic).read_image(0) == b"JPEG 1.jpg"


def test_a_folder_or_pipe_in_place_of_an_image_is_missing(classic: Path) -> None:
    (classic / "Images" / "2.jpg").unlink()
    (classic / "Images" / "2.jpg").mkdir()
    with pytest.raises(SourceError, match=r"the first is 2.jpg"):
        open_classic(classic)


def test_an_image_that_vanishes_later_is_a_sample_error(classic: Path) -> None:
    source = open_classic(classic)
    (classic / "Images" / "1.jpg").unlink()
    with pytest.raises(SampleError, match=r"1.jpg: cannot be read: No such file"):
        source.read_image(0)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("null", r"2.jpg#0 is missing \(None or NaN\)"),
        ("NaN", r"2.jpg#0 is missing \(None or NaN\)"),
        ("7", "2.jpg#0 is int, not text"),
        (r'"half \ud83d"', "2.jpg#0 holds half a surrogate pair at character 5"),
    ],
)
def test_a_caption_that_is_no_text_is_named(tmp_path: Path, raw: str, found: str) -> None:
    put_images(tmp_path / "images", ("2.jpg",))
    image = f'{{"filename": "2.jpg", "split": "train", "sentences": [{{"raw": {raw}}}]}}'
    put(tmp_path, {"dataset_flickr8k.json": f'{{"images": [{image}]}}'})
    with pytest.raises(SampleError, match=found):
        open_classic(tmp_path)


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    put_images(tmp_path / "images", ("2.jpg",))
    image = '{"filename": "2.jpg", "split": "train", "sentences": []}'
    put(tmp_path, {"dataset_flickr8k.json": f'{{"images": [{image}, {image}]}}'})
    with pytest.raises(SourceError, match=r"1 images are listed more than once, the first is '2.jpg'"):
        open_classic(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["{", "{}", "[1]", '{"images": [3]}', '{"images": [{"filename": 5, "split": "train", "sentences": []}]}'],
)
def test_json_of_another_layout_is_refused(tmp_path: Path, text: str) -> None:
    put_images(tmp_path / "images")
    put(tmp_path, {"dataset_flickr30k.json": text})
    with pytest.raises(SourceError, match="is not Karpathy's layout"):
        open_source("flickr30k", data_dir=tmp_path)


def test_a_folder_with_no_known_layout_is_answered_with_the_fetch_command(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"holds none of dataset_flickr8k.json, Flickr8k.token.txt"
    ) as caught:
        open_classic(tmp_path)
    assert "hf download jxie/flickr8k --repo-type dataset --local-dir" in str(caught.value.hint)


def test_an_unclosed_quote_is_refused_and_does_not_swallow_the_rest(tmp_path: Path) -> None:
    put_images(tmp_path / "Images")
    put(tmp_path, {"captions.txt": captions_csv() + '1.jpg,"never closed\n2.jpg,more\n'})
    with pytest.raises(SourceError, match=r"captions.txt is not a CSV file"):
        open_classic(tmp_path)


def test_the_real_flickr8k_opens_with_its_official_splits(real_data: Path) -> None:
    source = open_source("flickr8k", data_dir=real_data / "flickr8k")
    assert Counter(image.split for image in source.images) == {"train": 1400, "val": 200, "test": 200}
    assert len(source.captions) == 9000
    data = source.read_image(0)
    assert isinstance(data, bytes)
    assert data.startswith(b"\xff\xd8")


def test_the_real_token_and_csv_files_hold_the_same_captions(real_data: Path, tmp_path: Path) -> None:
    origin = real_data / "flickr8k"
    (tmp_path / "Images").symlink_to(origin / "Images")
    for path in origin.glob("*.txt"):
        if path.name != "Flickr8k.token.txt":
            shutil.copy(path, tmp_path)
    from_csv, from_tokens = open_classic(tmp_path), open_classic(origin)
    assert from_csv.images == from_tokens.images
    assert from_csv.captions == from_tokens.captions
