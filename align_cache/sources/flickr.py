"""``flickr30k`` and ``flickr8k``: from the hub, or from the layouts in which they lie on people's disks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from align_cache.errors import SourceError
from align_cache.sources import hub
from align_cache.sources.annotations import (
    read_bar_csv,
    read_captions_csv,
    read_karpathy,
    read_split_lists,
    read_text,
    read_token,
)
from align_cache.sources.assembly import LOCAL, Record, assemble
from align_cache.sources.base import Source
from align_cache.sources.disk import first_holding
from align_cache.sources.flickr_parquet import open_flickr_parquet
from align_cache.sources.parquet import find_parquet

_Reader: TypeAlias = Callable[[Path], tuple[list[Record], list[str]]]


@dataclass(frozen=True)
class _Dataset:
    name: str
    repository: str
    layouts: tuple[tuple[str, _Reader], ...]
    """Annotation files and their readers, the first that is there is taken."""


def _read_captions_file(path: Path) -> tuple[list[Record], list[str]]:
    """Read a table of captions, bars or commas between its columns."""
    header = read_text(path).partition("\n")[0]
    return read_bar_csv(path) if "|" in header else read_captions_csv(path)


_FLICKR30K = _Dataset(
    "flickr30k",
    "umaru97/flickr30k_train_val_test",
    (
        ("dataset_flickr30k.json", read_karpathy),
        ("results_20130124.token", read_token),
        ("results.csv", _read_captions_file),
        ("captions.txt", _read_captions_file),
    ),
)
_FLICKR8K = _Dataset(
    "flickr8k",
    "jxie/flickr8k",
    (
        ("dataset_flickr8k.json", read_karpathy),
        ("Flickr8k.token.txt", read_token),
        ("captions.txt", _read_captions_file),
    ),
)

REPOSITORIES = {dataset.name: dataset.repository for dataset in (_FLICKR30K, _FLICKR8K)}
"""The hub's copy of each."""

_IMAGE_FOLDERS = (
    "images",
    "Images",
    "flickr30k-images",
    "flickr30k_images",
    "Flicker8k_Dataset",  # so spelled in the original archive
    "Flickr8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",
    "flickr30k_images/flickr30k_images",
    ".",
)
_SPLIT_LISTS = (
    {
        "train": "Flickr_8k.trainImages.txt",
        "val": "Flickr_8k.devImages.txt",
        "test": "Flickr_8k.testImages.txt",
    },
    {"train": "train.txt", "val": "val.txt", "test": "test.txt"},
)


def open_flickr30k(*, data_dir: Path | None = None, revision: str | None = None) -> Source:
    """Return Flickr30k; see :func:`open_flickr8k`."""
    return _open(_FLICKR30K, data_dir, revision)


def open_flickr8k(*, data_dir: Path | None = None, revision: str | None = None) -> Source:
    """Return Flickr8k: ids are image file names, captions ``name#i``, sorted by name (parquet: file order).

    Parameters
    ----------
    data_dir : Path, optional
        A folder in one of the layouts of docs/datasets.md; None takes the hub's copy.
    revision : str, optional
        Revision of the hub's copy.

    Raises
    ------
    SourceError, OfflineError
    """
    return _open(_FLICKR8K, data_dir, revision)


def _open(dataset: _Dataset, data_dir: Path | None, revision: str | None) -> Source:
    if data_dir is None:
        folder, commit = hub.fetch_snapshot(
            dataset.repository, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"]
        )
        return open_flickr_parquet(dataset.name, find_parquet(folder), revision=commit)
    folders = [data_dir, *sorted(path for path in data_dir.iterdir() if path.is_dir())]
    for file_name, read in dataset.layouts:
        for folder in folders:
            if (folder / file_name).is_file():
                return _open_files(dataset, folder / file_name, read, data_dir)
    if paths := find_parquet(data_dir):
        source = open_flickr_parquet(dataset.name, paths, revision=LOCAL)
        return replace(source, notes=(f"read as parquet files: {paths[0].parent}", *source.notes))
    wanted = ", ".join(name for name, _ in dataset.layouts)
    raise SourceError(
        f"{dataset.name}: {data_dir} holds none of {wanted} nor the hub's parquet files",
        hint=f"fetch it: {hub.fetch_command(dataset.repository, repo_type='dataset')} --local-dir {data_dir}",
    )


def _open_files(dataset: _Dataset, annotations: Path, read: _Reader, data_dir: Path) -> Source:
    records, notes = read(annotations)
    if not any(record.split for record in records):
        records, split_notes = _with_splits(records, (annotations.parent, data_dir))
        notes = [*notes, *split_notes]
    root = _image_folder(dataset.name, records, (annotations.parent, data_dir))
    layout = f"read as {annotations.name} with images in {root}"
    return assemble(dataset.name, records, root, notes=(layout, *notes))


def _with_splits(records: list[Record], folders: Sequence[Path]) -> tuple[list[Record], list[str]]:
    for folder in folders:
        for names in _SPLIT_LISTS:
            lists = {split: folder / name for split, name in names.items() if (folder / name).is_file()}
            if lists:
                return read_split_lists(lists, records)
    return records, ["no split lists beside the captions: no image carries a split"]


def _image_folder(dataset: str, records: Sequence[Record], folders: Sequence[Path]) -> Path:
    candidates = [folder / name for folder in dict.fromkeys(folders) for name in _IMAGE_FOLDERS]
    found = first_holding(candidates, [record.name for record in records])
    if found is None:
        raise SourceError(
            f"{dataset}: none of the {len(records)} listed images lies in {folders[0]}",
            hint=f"put them into one of {', '.join(_IMAGE_FOLDERS[:-1])} beside the captions",
        )
    return found
