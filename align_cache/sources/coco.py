"""``coco``: COCO captions from disk, as the project publishes them or in Karpathy's split."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align_cache.errors import SourceError, UsageError
from align_cache.sources.annotations import read_karpathy, read_text
from align_cache.sources.assembly import Record, assemble
from align_cache.sources.base import Source
from align_cache.sources.disk import first_holding

_KARPATHY = "dataset_coco.json"
_YEARS = ("2017", "2014")
_SPLITS = ("train", "val")
_ANNOTATION_FOLDERS = (".", "annotations")
_IMAGE_FOLDERS = (".", "images")
_FETCH = (
    "unpack annotations_trainval2017.zip, train2017.zip and val2017.zip of cocodataset.org into that folder"
)


def open_coco(*, data_dir: Path | None = None) -> Source:
    """Return COCO captions: ids are ``val2017/000000000139.jpg``, captions ``…#i`` in the order of the file.

    Karpathy's ``dataset_coco.json`` is taken where it is there, else 2017, else 2014; a split by its file.

    Parameters
    ----------
    data_dir : Path
        Holds ``captions_train2017.json`` and ``captions_val2017.json``, or ``annotations`` with them, and the
        folders ``train2017`` and ``val2017``, or ``images`` with them.

    Raises
    ------
    UsageError
        Without ``data_dir``.
    SourceError, SampleError
    """
    if data_dir is None:
        raise UsageError("coco is read from disk", hint="add --data-dir FOLDER")
    if (karpathy := _find(data_dir, _KARPATHY)) is not None:
        records, notes = read_karpathy(karpathy)
        return _assembled(data_dir, records, [f"read as {_KARPATHY}", *notes])
    for year in _YEARS:
        files = {split: _find(data_dir, f"captions_{split}{year}.json") for split in _SPLITS}
        if any(files.values()):
            return _open_year(data_dir, year, {split: file for split, file in files.items() if file})
    raise SourceError(
        f"coco: {data_dir} holds neither captions_train2017.json nor captions_val2017.json, nor annotations/",
        hint=_FETCH,
    )


def _open_year(data_dir: Path, year: str, files: Mapping[str, Path]) -> Source:
    """Read the splits that have images: annotations come together, and many fetch no images but ``val``'s."""
    records: list[Record] = []
    notes = []
    for split, file in files.items():
        if any((data_dir / folder / f"{split}{year}").is_dir() for folder in _IMAGE_FOLDERS):
            records += _read_captions(file, split, folder=f"{split}{year}")
            notes.append(f"read as {file.name}")
        else:
            notes.append(f"{file.name} is left out: there is no folder {split}{year} of its images")
    if not records:
        wanted = " or ".join(f"{split}{year}" for split in files)
        raise SourceError(f"coco: {data_dir} holds captions and no folder {wanted} of images", hint=_FETCH)
    return _assembled(data_dir, records, notes)


def _assembled(data_dir: Path, records: list[Record], notes: list[str]) -> Source:
    captioned = [record for record in records if record.captions]
    if without := len(records) - len(captioned):
        notes = [*notes, f"{without} images have no captions: left out"]
    places = [data_dir / folder for folder in _IMAGE_FOLDERS]
    root = first_holding(places, [record.name for record in captioned]) or data_dir
    return assemble("coco", captioned, root, notes=(*notes, f"images are in {root}"))


def _find(data_dir: Path, name: str) -> Path | None:
    candidates = (data_dir / folder / name for folder in _ANNOTATION_FOLDERS)
    return next((path for path in candidates if path.is_file()), None)


def _read_captions(file: Path, split: str, *, folder: str) -> list[Record]:
    """Read ``images`` (id and file name) and ``annotations`` (image's id and caption) of one file."""
    try:
        content = json.loads(read_text(file))
        listed = [(image["id"], _name(image)) for image in content["images"]]
        said = [(each["image_id"], each["caption"]) for each in content["annotations"]]
        records = {number: Record(f"{folder}/{name}", split=split) for number, name in listed}
        unknown = Counter(number for number, _ in said if number not in records)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{file.name} is not COCO's layout: {type(error).__name__} {error}") from error
    if len(records) < len(listed):
        raise SourceError(f"{file.name}: {len(listed) - len(records)} image ids are listed more than once")
    if unknown:
        raise SourceError(
            f"{file.name}: {unknown.total()} captions are of images that it does not list, "
            f"the first of {next(iter(unknown))}"
        )
    for number, caption in said:
        records[number].captions.append(caption)
    return list(records.values())


def _name(image: Mapping[str, Any]) -> str:
    if not isinstance(image["file_name"], str):
        raise TypeError(f"file_name {image['file_name']!r}")
    return str(image["file_name"])
