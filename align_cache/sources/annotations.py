"""Caption and split files as the Flickr datasets are handed around, read into records."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from align_cache.errors import SourceError
from align_cache.sources.assembly import Record, merge
from align_cache.splits import canonical_split

_UNSEPARATED = re.compile(r"\s*(\d+)\s+(\S.*)")
"""``4   A dog runs across the grass .``: the comment number and the comment without the bar between them."""


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises
    ------
    SourceError
        If it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        ) from error


def read_karpathy(path: Path) -> tuple[list[Record], list[str]]:
    """Read ``dataset_flickr8k.json``, ``…flickr30k.json`` or ``…coco.json``; ``restval`` is train."""
    try:
        listed = json.loads(read_text(path))["images"]
        records = [_karpathy_record(image) for image in listed]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{path.name} is not Karpathy's layout: {type(error).__name__} {error}") from error
    return records, []


def _karpathy_record(image: Mapping[str, Any]) -> Record:
    if not isinstance(image["filename"], str):
        raise TypeError(f"filename {image['filename']!r}")
    captions: list[object] = [sentence["raw"] for sentence in image["sentences"]]
    # COCO's images lie in two folders, and its entries name them.
    name = f"{image['filepath']}/{image['filename']}" if "filepath" in image else image["filename"]
    return Record(name, captions, canonical_split(image["split"]))


def read_token(path: Path) -> tuple[list[Record], list[str]]:
    """Read ``Flickr8k.token.txt`` or ``results_20130124.token``: ``name#i``, a tab, the caption."""
    rows = []
    for number, line in _lines(path):
        left, tab, text = line.partition("\t")
        name, hash_sign, order = left.rpartition("#")
        if not (tab and hash_sign and order.isascii() and order.isdigit()):
            raise SourceError(
                f"{path.name} line {number}: found {line[:60]!r}, wanted name#i, a tab and a caption"
            )
        rows.append((name, int(order), text))
    return _grouped(path, rows), []


def read_bar_csv(path: Path) -> tuple[list[Record], list[str]]:
    """Read Kaggle's ``results.csv``: name | number | caption; a row that lacks its second bar is repaired."""
    rows, notes = [], []
    for number, line in _lines(path):
        if number == 1:  # the header
            continue
        fields = line.split("|", 2)
        if len(fields) == 2 and (repaired := _UNSEPARATED.fullmatch(fields[1])):
            fields = [fields[0], repaired[1], repaired[2]]
            notes.append(f"{path.name} line {number} lacks a separator between number and caption: repaired")
        if len(fields) != 3 or not fields[1].strip().isdecimal():
            raise SourceError(
                f"{path.name} line {number}: found {line[:60]!r}, wanted name | number | caption"
            )
        rows.append((fields[0].strip(), int(fields[1]), fields[2]))
    return _grouped(path, rows), notes


def read_captions_csv(path: Path) -> tuple[list[Record], list[str]]:
    """Read Kaggle's ``captions.txt``: a header, then name, comma, the caption, quoted where it has commas."""
    records: dict[str, Record] = {}
    try:
        for number, row in enumerate(
            csv.reader(io.StringIO(read_text(path), newline=""), strict=True), start=1
        ):
            if len(row) != 2:
                raise SourceError(f"{path.name} row {number}: {len(row)} columns, wanted image and caption")
            if number > 1:
                merge(records, Record(row[0], [row[1]]), where=path.name)
    except csv.Error as error:
        raise SourceError(f"{path.name} is not a CSV file: {error}") from error
    return list(records.values()), []


def read_split_lists(lists: Mapping[str, Path], records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """Give records the split of the list that names them; those in no list are left out, and counted.

    Parameters
    ----------
    lists : mapping of split to file
        One image name a line, with or without ``.jpg``.

    Raises
    ------
    SourceError
        For an image in two lists, or without captions.
    """
    by_name = {record.name: record for record in records}
    split_of: dict[str, str] = {}
    for split, path in lists.items():
        for number, line in _lines(path):
            name = line.strip() if line.strip() in by_name else f"{line.strip()}.jpg"
            if name not in by_name:
                raise SourceError(f"{path.name} line {number}: {line.strip()!r} has no captions")
            if split_of.setdefault(name, split) != split:
                raise SourceError(f"{path.name}: {name} stands in two splits, {split_of[name]} and {split}")
    for name, split in split_of.items():
        by_name[name].split = split
    left_out = len(by_name) - len(split_of)
    notes = [f"{left_out} captioned images are in no split list: left out"] if left_out else []
    return [by_name[name] for name in split_of], notes


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    # Not splitlines(): a caption may hold a form feed or a line separator of its own.
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _grouped(path: Path, rows: Iterable[tuple[str, int, str]]) -> list[Record]:
    """Collect rows of (name, number, caption) by image, captions in the order of their numbers."""
    numbered: dict[str, dict[int, str]] = {}
    for name, number, text in rows:
        texts = numbered.setdefault(name, {})
        if number in texts:
            raise SourceError(f"{path.name}: caption {name}#{number} is there twice")
        texts[number] = text
    return [Record(name, [texts[i] for i in sorted(texts)]) for name, texts in numbered.items()]
