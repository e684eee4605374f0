"""The hub's Flickr parquet files: an image, its captions in one column or in five, and perhaps a split."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from align_cache.errors import SourceError
from align_cache.sources.assembly import Record, checked_captions
from align_cache.sources.base import ImageSample, Source
from align_cache.sources.parquet import ParquetRows, parts_by_split
from align_cache.splits import canonical_split


def open_flickr_parquet(name: str, paths: Sequence[Path], *, revision: str) -> Source:
    """Return a captioned dataset from parquet files, in file order.

    The id is the column ``filename``, else the file name kept with the image, else split and row; the split
    is the column ``split``, else what the file is named after.

    Raises
    ------
    SourceError, SampleError
    """
    rows = ParquetRows(parts_by_split(paths))
    column = rows.image_column()
    splits = _splits(rows)
    records = [
        Record(sample_id, captions, split)
        for sample_id, captions, split in zip(_ids(rows, column), _captions(rows), splits, strict=True)
    ]
    twice = [
        sample_id for sample_id, times in Counter(record.name for record in records).items() if times > 1
    ]
    if twice:
        raise SourceError(f"{name}: {len(twice)} images are there more than once, the first is {twice[0]}")
    captions, notes = checked_captions(records)
    images = tuple(
        ImageSample(record.name, fingerprint, split=record.split)
        for record, fingerprint in zip(records, rows.fingerprints(), strict=True)
    )
    if len(set(splits)) == 1 and splits[0] is not None:
        notes = (f"every image is in split {splits[0]}", *notes)

    def read_image(index: int) -> bytes:
        return rows.image(column, index, sample_id=images[index].sample_id)

    return Source(name, revision, images, captions, read_image, notes=notes)


def _splits(rows: ParquetRows) -> Sequence[str | None]:
    if "split" in rows.columns:
        return [None if split is None else canonical_split(str(split)) for split in rows.values("split")]
    return [split for split, _ in rows.places]


def _ids(rows: ParquetRows, image_column: str) -> list[str]:
    numbered = [f"{split}/{row:05d}" for split, row in rows.places]
    for column in ("filename", f"{image_column}.path"):
        if column in rows.leaves:
            names = rows.values(column)
            if all(isinstance(name, str) and name for name in names):
                return [PurePosixPath(name).name for name in names]
    return numbered


def _captions(rows: ParquetRows) -> list[list[object]]:
    if "caption" in rows.columns:
        return [texts if isinstance(texts, list) else [texts] for texts in rows.values("caption")]
    columns = sorted(column for column in rows.columns if column.startswith("caption_"))
    if not columns:
        raise SourceError(f"{rows.files[0].path.name} has columns {rows.columns}, no caption among them")
    return [list(texts) for texts in zip(*(rows.values(column) for column in columns), strict=True)]
