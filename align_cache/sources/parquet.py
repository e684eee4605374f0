"""The hub's parquet files: small columns read at once, images a row group at a time when asked for."""

from __future__ import annotations

import hashlib
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from align_cache.errors import SampleError, SourceError
from align_cache.splits import SPLITS, canonical_split

_PLACES = ("*.parquet", "data/*.parquet", "plain_text/*.parquet", "*/*/*.parquet")
"""Side by side, in the hub's usual folders, and as its converter lays them: configuration/split/0000."""

_PART_NAME = re.compile(r"(?P<split>.+)-(?P<part>\d+)-of-(?P<parts>\d+)(-[0-9a-f]+)?")

_KEPT_ROW_GROUPS = 2
"""Threads beside each other may still be on the row group before; more would only hold memory."""


def find_parquet(folder: Path) -> list[Path]:
    """Return the parquet files in one of the hub's arrangements, sorted; empty where there are none."""
    for pattern in _PLACES:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def parts_by_split(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Sort files by the split that their names tell (``train-00000-of-00002``), train, val and test first.

    Raises
    ------
    SourceError
        If there are no files, a split lacks one of its files, or has files in several folders.
    """
    if not paths:
        raise SourceError("the hub's copy holds no parquet files where they are expected")
    splits: dict[str, list[Path]] = {}
    for path in paths:
        splits.setdefault(_split_of(path), []).append(path)
    for split, files in splits.items():
        _check_whole(split, files)
    order = {split: i for i, split in enumerate(SPLITS)}
    return dict(sorted(splits.items(), key=lambda item: (order.get(item[0], len(SPLITS)), item[0])))


def _split_of(path: Path) -> str:
    if named := _PART_NAME.fullmatch(path.stem):
        return canonical_split(named["split"])
    return canonical_split(path.parent.name if path.stem.isdigit() else path.stem)


def _check_whole(split: str, files: Sequence[Path]) -> None:
    folders = sorted({str(path.parent) for path in files})
    if len(folders) > 1:
        raise SourceError(
            f"split {split} has files in several folders: {', '.join(folders)}; name one of them"
        )
    for path in files:
        named = _PART_NAME.fullmatch(path.stem)
        if named and len(files) != int(named["parts"]):
            raise SourceError(
                f"split {split} has {len(files)} of {int(named['parts'])} files in {path.parent}"
            )


class ParquetFile:
    """One parquet file. Safe to read from several threads."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path} is not a readable parquet file: {error}") from error
        schema = self._file.schema_arrow
        self.columns: tuple[str, ...] = tuple(schema.names)
        self.metadata: Mapping[bytes, bytes] = schema.metadata or {}
        self.leaves = frozenset(self._file.schema.column(i).path for i in range(len(self._file.schema)))
        groups = range(self._file.num_row_groups)
        self._ends = list(accumulate(self._file.metadata.row_group(group).num_rows for group in groups))
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def fingerprint(self) -> str:
        """Digest of the size and the footer, which holds every chunk's place, size and statistics."""
        with self.path.open("rb") as file:
            size = file.seek(-8, 2) + 8
            footer_bytes = int.from_bytes(file.read(4), "little")
            file.seek(-8 - footer_bytes, 2)
            return hashlib.sha256(b"%d:" % size + file.read(footer_bytes)).hexdigest()[:16]

    def values(self, column: str) -> list[Any]:
        """Return a small column as Python values; ``image.path`` names a field of a structure.

        Raises
        ------
        SourceError
            If its bytes are damaged.
        """
        import pyarrow as pa

        try:
            table = self._file.read(columns=[column])
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self.path.name}: column {column} cannot be read: {error}") from error
        return list((table.flatten() if "." in column else table).column(0).to_pylist())

    def image(self, column: str, row: int, *, sample_id: str) -> bytes:
        """Return the encoded image of a row.

        Raises
        ------
        SampleError
            If it is missing or its bytes are damaged; names ``sample_id``.
        """
        import pyarrow as pa

        group = bisect_right(self._ends, row)
        first = self._ends[group - 1] if group else 0
        try:
            value = self._group(group, column)[row - first].as_py()
        except (pa.ArrowException, OSError) as error:
            raise SampleError(
                f"{sample_id}: row {row} of {self.path.name} cannot be read: {error}"
            ) from error
        if not isinstance(value, bytes):
            raise SampleError(f"{sample_id}: row {row} of {self.path.name} holds no image")
        return value

    def _group(self, group: int, column: str) -> Any:
        key = (group, column)
        with self._lock:
            if key not in self._kept:
                table = self._file.read_row_group(group, columns=[column]).flatten()
                names = table.column_names
                self._kept[key] = table.column(names.index(f"{column}.bytes") if len(names) > 1 else 0)
                if len(self._kept) > _KEPT_ROW_GROUPS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


class ParquetRows:
    """The rows of all splits, numbered through: split by split, file by file.

    Parameters
    ----------
    parts : mapping of split to files
        As :func:`parts_by_split` gives it.

    Raises
    ------
    SourceError
        If a file cannot be read or has other columns than the first.
    """

    def __init__(self, parts: Mapping[str, Sequence[Path]]) -> None:
        self.files = tuple(ParquetFile(path) for paths in parts.values() for path in paths)
        self.columns, self.leaves, self.metadata = (
            self.files[0].columns,
            self.files[0].leaves,
            self.files[0].metadata,
        )
        for file in self.files:
            if file.columns != self.columns:
                raise SourceError(
                    f"{file.path.name} has columns {file.columns}, its neighbours {self.columns}"
                )
        self._ends = list(accumulate(len(file) for file in self.files))
        files = iter(self.files)
        sizes = {split: sum(len(next(files)) for _ in paths) for split, paths in parts.items()}
        self.places = [(split, row) for split, size in sizes.items() for row in range(size)]
        """For each row the split that its file's name tells, and its place in that split."""

    def values(self, column: str) -> list[Any]:
        """Return a small column of all files."""
        return [value for file in self.files for value in file.values(column)]

    def image_column(self) -> str:
        """Return the name of the column with the images.

        Raises
        ------
        SourceError
        """
        for name in ("image", "img"):
            if name in self.columns:
                return name
        raise SourceError(f"{self.files[0].path.name} has columns {self.columns}, none of them image or img")

    def fingerprints(self) -> list[str]:
        """Return what stands for each row's content: its file's fingerprint and its place there."""
        return [
            f"{mark}:{row}"
            for file in self.files
            for mark in [file.fingerprint()]
            for row in range(len(file))
        ]

    def image(self, column: str, row: int, *, sample_id: str) -> bytes:
        """Return the encoded image of a row; see :meth:`ParquetFile.image`."""
        index = bisect_right(self._ends, row)
        first = self._ends[index - 1] if index else 0
        return self.files[index].image(column, row - first, sample_id=sample_id)
