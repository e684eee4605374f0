"""``cifar10``: from the hub, from its parquet files on disk, or from ``cifar-10-batches-py``."""

import json
from collections.abc import Sequence
from pathlib import Path

from align_cache.errors import SampleError, SourceError
from align_cache.sources import hub
from align_cache.sources.assembly import LOCAL
from align_cache.sources.base import ImageSample, Source
from align_cache.sources.cifar10_batches import BATCHES_FOLDER, open_batches
from align_cache.sources.parquet import ParquetRows, find_parquet, parts_by_split

REPOSITORY = "uoft-cs/cifar10"

LABEL_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def open_cifar10(*, data_dir: Path | None = None, revision: str | None = None) -> Source:
    """Return CIFAR-10 in file order, ids ``train/00000`` and ``test/00000``.

    Parameters
    ----------
    data_dir : Path, optional
        A folder with the hub's parquet files, with ``cifar-10-batches-py``, or that folder itself; None takes
        the hub's copy.
    revision : str, optional
        Revision of the hub's copy.

    Raises
    ------
    SourceError, OfflineError
    """
    if data_dir is None:
        folder, commit = hub.fetch_snapshot(
            REPOSITORY, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"]
        )
        return _open_parquet(find_parquet(folder), commit, notes=())
    for batches in (data_dir / BATCHES_FOLDER, data_dir):
        if (batches / "data_batch_1").exists() or (batches / "test_batch").exists():
            return open_batches(batches, LABEL_NAMES)
    if paths := find_parquet(data_dir):
        return _open_parquet(paths, LOCAL, notes=(f"read as parquet files: {paths[0].parent}",))
    raise SourceError(
        f"cifar10: {data_dir} holds neither {BATCHES_FOLDER} nor parquet files",
        hint=f"unpack cifar-10-python.tar.gz there, or: {hub.fetch_command(REPOSITORY, repo_type='dataset')} "
        f"--local-dir {data_dir}",
    )


def _open_parquet(paths: Sequence[Path], revision: str, *, notes: tuple[str, ...]) -> Source:
    rows = ParquetRows(parts_by_split(paths))
    _check_label_names(rows)
    column = rows.image_column()
    images = tuple(
        ImageSample(f"{split}/{row:05d}", fingerprint, _checked_label(label, f"{split}/{row:05d}"), split)
        for (split, row), label, fingerprint in zip(
            rows.places, rows.values("label"), rows.fingerprints(), strict=True
        )
    )

    def read_image(index: int) -> bytes:
        return rows.image(column, index, sample_id=images[index].sample_id)

    return Source("cifar10", revision, images, (), read_image, LABEL_NAMES, notes)


def _checked_label(label: object, sample_id: str) -> int:
    if not isinstance(label, int) or not 0 <= label < len(LABEL_NAMES):
        raise SampleError(f"cifar10: {sample_id} has label {label!r}, wanted 0 to 9")
    return label


def _check_label_names(rows: ParquetRows) -> None:
    """Refuse files of another dataset: the class names, where they are told, have to be these."""
    if "label" not in rows.columns:
        raise SourceError(f"cifar10: {rows.files[0].path} has columns {rows.columns}, no label among them")
    try:
        told = json.loads(rows.metadata.get(b"huggingface", b"{}"))
        names = told.get("info", {}).get("features", {}).get("label", {}).get("names", LABEL_NAMES)
    except (ValueError, AttributeError) as error:
        raise SourceError(
            f"cifar10: {rows.files[0].path} describes itself in no known form: {error}"
        ) from error
    if tuple(names) != LABEL_NAMES:
        raise SourceError(
            f"cifar10: {rows.files[0].path} has classes {names[:3]}…, wanted {LABEL_NAMES[:3]}…"
        )
