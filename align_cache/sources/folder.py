"""``folder``: anyone's images, with a table of captions or labels beside them, or a folder per class."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from align_cache.errors import SourceError, UsageError
from align_cache.sources.annotations import read_text
from align_cache.sources.assembly import Record, assemble, merge
from align_cache.sources.base import Source
from align_cache.sources.disk import FileTree, first_holding
from align_cache.splits import SPLITS, canonical_split

_TABLES = tuple(f"{stem}.{kind}" for stem in ("captions", "labels", "metadata") for kind in ("csv", "jsonl"))
_IMAGE_COLUMNS = ("file_name", "image", "path")
_CAPTION_COLUMNS = ("caption", "text", "captions")
_IMAGE_FOLDERS = (".", "images", "Images")
_MAX_DIGITS = 18
"""Of a label that is a number: what is longer does not fit into 64 bits and is a name."""
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What an image file is called at its end, in small letters."""


def open_folder(*, data_dir: Path | None = None) -> Source:
    """Return a folder of images, sorted by path, ids the paths below it.

    Captions, labels and splits come from ``captions``, ``labels`` or ``metadata`` as ``.csv`` or ``.jsonl``;
    without one, the folder an image lies in is its class, below a folder per split if all top folders are
    named so.

    Parameters
    ----------
    data_dir : Path

    Raises
    ------
    UsageError
        Without ``data_dir``.
    SourceError, SampleError
    """
    if data_dir is None:
        raise UsageError("folder reads your own images", hint="add --data-dir FOLDER")
    tables = [data_dir / name for name in _TABLES if (data_dir / name).is_file()]
    if not tables:
        return _open_tree(data_dir)
    records: dict[str, Record] = {}
    labels: dict[str, str] = {}
    for table in tables:
        _read_table(table, records, labels)
    label_names = _number_labels(records, labels)
    root = first_holding([data_dir / place for place in _IMAGE_FOLDERS], records) or data_dir
    note = f"read as {', '.join(table.name for table in tables)} with images in {root}"
    return assemble("folder", records.values(), root, notes=(note,), label_names=label_names)


def _open_tree(data_dir: Path) -> Source:
    names = image_names(FileTree(data_dir))
    if not names:
        wanted = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(
            f"folder: no images are listed for {data_dir}: it holds no {wanted} file",
            hint="name the folder that holds them, or a table of them such as captions.csv",
        )
    folders = {name: PurePosixPath(name).parts[:-1] for name in names}
    by_split = all(parts and canonical_split(parts[0]) in SPLITS for parts in folders.values())
    records, labels = {}, {}
    for name, parts in folders.items():
        records[name] = Record(name, split=canonical_split(parts[0]) if by_split else None)
        if class_name := "/".join(parts[1:] if by_split else parts):
            labels[name] = class_name
    label_names = _number_labels(records, labels)
    note = f"no {', '.join(_TABLES[::2])} or .jsonl in {data_dir}: the folder an image lies in is its class"
    return assemble("folder", records.values(), data_dir, notes=(note,), label_names=label_names)


def image_names(tree: FileTree) -> list[str]:
    """Return the paths of what is called like an image, sorted; a link that leads out of the folder too."""
    return [name for name in tree.names() if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]


def _read_table(table: Path, records: dict[str, Record], labels: dict[str, str]) -> None:
    seen: set[str] = set()
    for number, row in _rows(table):
        name = _image_name(row, table, number)
        captions = _captions(row)
        if name in seen and not captions:
            raise SourceError(f"{table.name} row {number}: {name} is listed more than once")
        seen.add(name)
        split, label = (_word(row, column, table, number) for column in ("split", "label"))
        merge(records, Record(name, captions, canonical_split(split) if split else None), where=table.name)
        if label and labels.setdefault(name, label) != label:
            raise SourceError(f"{table.name} row {number}: {name} has two labels, {labels[name]} and {label}")


def _word(row: Mapping[str, object], column: str, table: Path, number: int) -> str | None:
    """Return a split or a label as text, None where the row has none."""
    value = row.get(column)
    if value in (None, ""):
        return None
    if not isinstance(value, str | int):  # NaN among them, which pandas writes for what is missing
        raise SourceError(f"{table.name} row {number}: {column} is {value!r}, wanted text or a whole number")
    return str(value)


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Give each row with its number, the header of a CSV file being row 1."""
    try:
        if table.suffix == ".csv":
            reader = csv.DictReader(io.StringIO(read_text(table), newline=""), strict=True)
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise SourceError(f"{table.name} row {number} has not the columns of the header")
                yield number, row
        else:
            lines = read_text(table).split("\n")
            yield from (
                (number, json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip()
            )
    except (csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise SourceError(f"{table.name} cannot be read: {error}") from error


def _image_name(row: Mapping[str, object], table: Path, number: int) -> str:
    for column in _IMAGE_COLUMNS:
        if isinstance(row, dict) and isinstance(name := row.get(column), str) and name:
            return str(PurePosixPath(name))
    raise SourceError(
        f"{table.name} row {number} names no image",
        hint=f"name it in one of the columns {', '.join(_IMAGE_COLUMNS)}",
    )


def _captions(row: Mapping[str, object]) -> list[object]:
    for column in _CAPTION_COLUMNS:
        if column in row:
            value = row[column]
            return list(value) if isinstance(value, list) else [value]
    return []


def _number_labels(records: Mapping[str, Record], labels: Mapping[str, str]) -> tuple[str, ...]:
    """Give records their class numbers: the labels themselves where all are numbers, else by sorted name."""
    if all(label.isascii() and label.isdigit() and len(label) <= _MAX_DIGITS for label in labels.values()):
        names: tuple[str, ...] = ()
        numbers = {label: int(label) for label in labels.values()}
    else:
        names = tuple(sorted(set(labels.values())))
        numbers = {label: number for number, label in enumerate(names)}
    for name, label in labels.items():
        records[name].label = numbers[label]
    return names
