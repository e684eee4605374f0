"""Opening a feature set: checked first, then mapped; rows carry their ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import CorruptError, ShapeError
from align_cache.store.entry import open_entry
from align_cache.store.manifest import MEND_HINT, Manifest, read_manifest
from align_cache.store.shard import FEATURE_DTYPES, Shard

Features = NDArray[Any]
"""float16 or float32, as the set stores it; int32 of token ids."""
TextColumn: TypeAlias = Literal["sample_id", "group_id", "split", "text"]


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
        self._starts = np.cumsum([0, *(shard.rows for shard in self._shards)])

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
        return f"FeatureSet({self.name}, {self.rows:,} x {self.manifest.width} {self.dtype.name})"

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
    def variant(self) -> str:
        """The encoder's name and the noise: ``resnet18``, ``resnet18+blur:3``."""
        return self.manifest.variant

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
        """Features per row; of token ids the most that a row has room for."""
        return self.manifest.dim

    @property
    def rows(self) -> int:
        """Rows in all shards."""
        return self.manifest.rows

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype, float16 or float32; int32 of token ids."""
        return FEATURE_DTYPES[self.manifest.structure.storage.dtype]

    @property
    def holds_tokens(self) -> bool:
        """Whether rows are token ids, filled up with 0, and no features."""
        return self.vocabulary_size is not None

    @property
    def vocabulary_size(self) -> int | None:
        """Token ids are below it; None of features."""
        tokens = self.manifest.structure.tokens
        return None if tokens is None else tokens.vocabulary_size

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

    def encoded(self, column: TextColumn) -> NDArray[np.bytes_] | None:
        """Return a column of text as UTF-8 bytes, shape (rows,), read-only; None where there is none.

        It takes a quarter of what the decoded array does, or less, and is made anew at each call.

        Raises
        ------
        CorruptError
            If it is no UTF-8.
        """
        if not self._has(column):
            return None
        parts = [self._utf8(column, shard.columns[column]) for shard in self._shards]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def words(self, column: TextColumn, row: int) -> str | None:
        """Return one value of a column of text, and decode no other; None where there is none."""
        if not self._has(column):
            return None
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        values, place = self._shards[index].columns[column], row - int(self._starts[index])
        return bytes(self._utf8(column, values[place : place + 1])[0]).decode("utf-8")

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
        shard = np.searchsorted(self._starts, rows[order], side="right") - 1  # of each row, ascending
        cuts = np.flatnonzero(np.diff(shard, prepend=-1))  # where the rows of another shard begin
        for index, places in zip(shard[cuts], np.split(order, cuts)[1:], strict=True):
            out[places] = self._shards[index].features[rows[places] - self._starts[index]]
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

    def _strings(self, column: TextColumn) -> NDArray[np.str_] | None:
        encoded = self.encoded(column)
        return None if encoded is None else np.strings.decode(encoded, "utf-8")

    def _utf8(self, column: str, values: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
        """Return the values, which have to be UTF-8."""
        if values.view(np.uint8).max(initial=0) >= 0x80:  # else ASCII
            try:
                np.strings.decode(values, "utf-8")
            except UnicodeDecodeError as error:
                raise CorruptError(f"{column} in {self.folder} is not UTF-8", hint=MEND_HINT) from error
        return values
