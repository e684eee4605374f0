"""Opening a feature set: checked first, then mapped; rows carry their ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import CorruptError, ShapeError
from align_cache.files import is_plain_file
from align_cache.store.layout import shard_slices
from align_cache.store.manifest import MEND_HINT, Manifest, ShardEntry, read_manifest
from align_cache.store.shard import FEATURE_DTYPES, Shard, open_shard

Features = NDArray[Any]
"""float16 or float32, as the set stores it."""


class FeatureSet:
    """One dataset seen by one encoder, memory-mapped and read-only. Made by :meth:`open`.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
    shards : tuple of arrays, shape (rows of the shard, dim)
        Read-only maps of the files, shared by every process that opens the set.
    """

    def __init__(self, folder: Path, manifest: Manifest, shards: Sequence[Shard]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.shards: tuple[Features, ...] = tuple(shard.features for shard in shards)
        self._shards = tuple(shard for shard in shards if shard.rows)
        self._starts = np.cumsum([0, *(len(features) for features in self.shards)])

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> FeatureSet:
        """Open a finished feature set.

        Parameters
        ----------
        folder : Path
            The folder that holds ``manifest.json``.
        verify : bool
            Whether every byte is held against its checksum (2 to 3 GB/s). Sizes, storage and shapes are
            always checked.

        Raises
        ------
        CorruptError
            Naming the file that is not what was published, and how.
        CacheError
            If the set is missing, unfinished, or from a newer align-cache.
        """
        manifest = read_manifest(folder)
        try:
            shards = [
                open_entry(folder, manifest, index, verify=verify) for index in range(len(manifest.shards))
            ]
            if len({shard.optional for shard in shards if shard.rows}) > 1:
                raise CorruptError(f"the shards of {folder} differ in their columns")
        except CorruptError as error:
            raise CorruptError(error.message, hint=MEND_HINT) from error
        return cls(folder, manifest, shards)

    def __repr__(self) -> str:
        return f"FeatureSet({self.name}, {self.rows:,} x {self.dim} {self.dtype.name})"

    def __len__(self) -> int:
        return self.rows

    @property
    def name(self) -> str:
        """The set's name for people: ``flickr8k/resnet18@1a2b3c4d``."""
        return self.manifest.name

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.manifest.dataset

    @property
    def encoder(self) -> str:
        """The encoder's name."""
        return self.manifest.encoder

    @property
    def modality(self) -> str:
        """``image`` or ``text``."""
        return self.manifest.modality

    @property
    def key(self) -> str:
        """sha256 of the identity, hex."""
        return self.manifest.key

    @property
    def key8(self) -> str:
        """The head of the key."""
        return self.manifest.key8

    @property
    def dim(self) -> int:
        """Features per row."""
        return self.manifest.dim

    @property
    def rows(self) -> int:
        """Rows in all shards."""
        return self.manifest.rows

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype, float16 or float32."""
        return FEATURE_DTYPES[self.manifest.structure.storage.dtype]

    @property
    def untrained(self) -> bool:
        """Whether the encoder had random weights; every table and figure says so."""
        return self.manifest.untrained

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, …; empty where there are none."""
        return self.manifest.label_names

    @cached_property
    def sample_ids(self) -> NDArray[np.str_]:
        """The ids of the rows, shape (rows,)."""
        ids = self._strings("sample_id")
        return np.empty(0, "<U1") if ids is None else ids

    @cached_property
    def group_ids(self) -> NDArray[np.str_] | None:
        """The image that each caption belongs to, shape (rows,); None for images."""
        return self._strings("group_id")

    @cached_property
    def splits(self) -> NDArray[np.str_] | None:
        """The split of each row, shape (rows,), empty where it has none; None where no row has one."""
        splits = self._strings("split")
        return None if splits is None or not splits.astype(bool).any() else splits

    @cached_property
    def texts(self) -> NDArray[np.str_] | None:
        """The captions, shape (rows,); None where they are not stored."""
        return self._strings("text")

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """The class of each row, shape (rows,); None where there are none."""
        if not self._has("label"):
            return None
        return np.concatenate([shard.columns["label"] for shard in self._shards]).astype(np.int64, copy=False)

    def take(self, rows: NDArray[np.integer[Any]], out: Features | None = None) -> Features:
        """Gather rows in the stored dtype.

        Parameters
        ----------
        rows : integer array, shape (n,)
            Each in [0, rows); any order, repeats allowed.
        out : array, shape (n, dim), optional
            C-contiguous, of the stored dtype; where to put them.

        Returns
        -------
        array, shape (n, dim)

        Raises
        ------
        IndexError
            If a row is outside the set.
        ShapeError
            If ``rows`` is not one-dimensional or ``out`` does not fit.
        """
        if rows.ndim != 1:
            raise ShapeError(f"rows have shape {rows.shape}, expected one dimension")
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.rows:
            raise IndexError(f"rows {rows.min()} to {rows.max()} asked of {self.name} with {self.rows} rows")
        rows, out = rows.astype(np.intp, copy=False), self._fitting(out, len(rows))
        if len(self._shards) == 1:
            # mode="clip" writes straight into out; the bounds were checked above.
            return self._shards[0].features.take(rows, axis=0, out=out, mode="clip")
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], self._starts)
        for features, start, low, high in zip(self.shards, self._starts, bounds, bounds[1:], strict=False):
            places = order[low:high]
            out[places] = features[rows[places] - start]
        return out

    def array(self) -> Features:
        """Return all rows, shape (rows, dim); the map itself (no copy) where there is one shard."""
        return self.shards[0] if len(self.shards) == 1 else np.concatenate(self.shards)

    def _fitting(self, out: Features | None, n: int) -> Features:
        if out is None:
            return np.empty((n, self.dim), self.dtype)
        if out.shape != (n, self.dim) or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ShapeError(
                f"out is {out.shape} {out.dtype.name}, expected contiguous {(n, self.dim)} {self.dtype.name}"
            )
        return out

    def _has(self, column: str) -> bool:
        return bool(self._shards) and column in self._shards[0].columns

    def _strings(self, column: str) -> NDArray[np.str_] | None:
        if not self._has(column):
            return None
        try:
            return np.concatenate(
                [np.strings.decode(shard.columns[column], "utf-8") for shard in self._shards]
            )
        except UnicodeDecodeError as error:
            raise CorruptError(f"{column} in {self.folder} is not UTF-8", hint=MEND_HINT) from error


def open_entry(folder: Path, manifest: Manifest, index: int, *, verify: bool = True) -> Shard:
    """Open one shard and hold it against what the manifest says of it.

    Raises
    ------
    CorruptError
        Naming the file and what is wrong with it.
    """
    entry: ShardEntry = manifest.shards[index]
    path, rows = folder / entry.file, shard_slices(manifest.identity)[index]
    if is_plain_file(path) and (size := path.stat().st_size) != entry.bytes:
        raise CorruptError(f"{path} has {size:,} bytes, expected {entry.bytes:,}")
    shard = open_shard(path, verify=verify)
    if shard.xxh3_128 != entry.xxh3_128:
        raise CorruptError(f"{path} is another shard than the one that was published: its checksum differs")
    shard.require(
        key=manifest.key,
        index=index,
        dtype=manifest.structure.storage.dtype,
        samples=rows.stop - rows.start,
    )
    if shard.features.shape != (entry.rows, manifest.dim):
        raise CorruptError(
            f"features in {path} have shape {shard.features.shape}, expected {(entry.rows, manifest.dim)}"
        )
    return shard
