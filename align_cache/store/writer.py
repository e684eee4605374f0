"""Writing a feature set: shard by shard, each whole or absent, the manifest last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import CacheError, CorruptError
from align_cache.files import TEMPORARY_SUFFIX, publish_bytes, sweep_temporaries
from align_cache.lock import holding, refusing_unwritable
from align_cache.store.columns import build_columns
from align_cache.store.derive import derive_manifest
from align_cache.store.layout import (
    MANIFEST_NAME,
    PROVENANCE_NAME,
    Identity,
    feature_set_folder,
    identity_key,
    parse_identity,
    plain,
    shard_name,
    shard_slices,
)
from align_cache.store.manifest import Manifest
from align_cache.store.shard import FEATURE_DTYPES, OPTIONAL_COLUMNS, Shard, encode_shard, open_shard

_ROW_OVERHEAD_BYTES = 256  # ids, split and caption of one row, generously
_SPARE_BYTES = 1 << 20  # headers, the manifest, the temporary's folder entry


class FeatureSetWriter:
    """Write one feature set, or the part of it that is missing; a context manager.

    Entering takes the set's lock, clears what a killed process left half-written, and holds every shard
    that is there against its checksum; damaged ones are removed and join ``missing``. Leaving releases the
    lock, finished or not: whole shards stay, and the next writer goes on from there.

    Parameters
    ----------
    cache_dir : Path
        The cache folder.
    identity : mapping
        What decides the content; see :func:`align_cache.store.layout.parse_identity`.
    untrained : bool
        Whether the encoder has random weights.
    label_names : sequence of str
        Names of the labels 0, 1, …; empty where there are none.
    overwrite : bool
        Drop what is there and begin anew.

    Raises
    ------
    BusyError
        On entering, if another process writes this set.
    CacheError
        On entering, if the folder cannot be written to.
    """

    folder: Path
    shard_slices: tuple[slice, ...]
    """Which rows of the dataset each shard covers."""
    missing: tuple[int, ...]
    """Shards still to be written; known once entered."""
    notes: tuple[str, ...]
    """What was found damaged and removed on entering, to be said once to the user."""

    def __init__(
        self,
        cache_dir: Path,
        identity: Identity,
        *,
        untrained: bool,
        label_names: Sequence[str] = (),
        overwrite: bool = False,
    ) -> None:
        self.folder = feature_set_folder(cache_dir, identity)
        self.shard_slices = shard_slices(identity)
        self.missing = tuple(range(len(self.shard_slices)))
        self.notes = ()
        self._identity = plain(identity)
        self._key = identity_key(identity)
        self._dtype = parse_identity(identity).storage.dtype
        self._untrained = untrained
        self._label_names = tuple(label_names)
        self._overwrite = overwrite
        self._dim: int | None = None
        self._optional: frozenset[str] | None = None
        self._held = ExitStack()

    def __enter__(self) -> FeatureSetWriter:
        with ExitStack() as stack:
            stack.enter_context(holding(self.folder))
            with refusing_unwritable(self.folder):
                self._prepare()
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def check_space(self, dim: int) -> None:
        """Refuse if the missing shards, with ``dim`` features a row, will not fit on the disk.

        :meth:`write_shard` asks this by itself; call it as soon as ``dim`` is known to fail before the work.
        """
        rows = sum(_length(self.shard_slices[index]) for index in self.missing)
        needed = rows * (dim * FEATURE_DTYPES[self._dtype].itemsize + _ROW_OVERHEAD_BYTES) + _SPARE_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise CacheError(
                f"{self.folder} needs about {needed / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free",
                hint="free space there, or choose another folder with --cache-dir",
            )

    def write_shard(
        self,
        index: int,
        *,
        features: NDArray[np.float32],
        sample_id: Sequence[str],
        group_id: Sequence[str] | None = None,
        label: Sequence[int | None] | NDArray[np.integer[Any]] | None = None,
        split: Sequence[str | None] | None = None,
        text: Sequence[str] | None = None,
        skipped: Sequence[tuple[str, str]] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Check the rows of one missing shard and publish it.

        Parameters
        ----------
        index : int
            Which shard; one of ``missing``.
        features : float32 array, shape (n, dim)
            Unit-norm rows, in the order of the dataset.
        sample_id : sequence of n str
            Ids, unique within the set.
        group_id : sequence of n str, optional
            The image that each caption belongs to.
        label : sequence of n int, optional
            All None counts as absent; some None is refused.
        split : sequence of n str or None, optional
            None, as a whole or for a row, is stored as the empty string.
        text : sequence of n str, optional
            The captions; empty ones are kept.
        skipped : sequence of (sample_id, reason)
            Samples of this shard's slice that have no row.
        counts : mapping of str to int, optional
            Added up over the shards into the manifest.

        Raises
        ------
        NonFiniteError, ShapeError
        CacheError
            If a row is not unit-norm, an id or text cannot be stored, rows are missing from the slice, or
            the disk is full. Nothing is left behind; earlier shards stay.
        """
        if index not in self.missing:
            raise CacheError(f"shard {index} of {self.folder} is not missing; missing are {self.missing}")
        expected = _length(self.shard_slices[index])
        if len(sample_id) + len(skipped) != expected:
            raise CacheError(
                f"shard {index} got {len(sample_id)} rows and {len(skipped)} skipped, expected {expected}"
            )
        columns = build_columns(
            features=features, dtype=self._dtype, sample_id=sample_id, group_id=group_id, label=label,
            split=split, text=text, skipped=skipped,
        )  # fmt: skip
        problem = self._misfit(features.shape[1], OPTIONAL_COLUMNS.intersection(columns), rows=len(features))
        if problem:
            raise CacheError(f"shard {index} of {self.folder} {problem}")
        self.check_space(features.shape[1])
        data = encode_shard(key=self._key, index=index, columns=columns, counts=plain(counts or {}))
        with refusing_unwritable(self.folder):
            publish_bytes(self.folder / shard_name(index), data)
        self.missing = tuple(other for other in self.missing if other != index)

    def finish(self, provenance: Mapping[str, Any]) -> Manifest:
        """Publish the manifest of a set with no shard missing, provenance beside it.

        The manifest is derived from the shards as they lie on the disk, which are checked once more.

        Parameters
        ----------
        provenance : mapping
            JSON values that are recorded and decide nothing: versions, dates, host, duration.

        Raises
        ------
        CacheError
            If shards are missing, or an id stands twice in the set.
        """
        if self.missing:
            raise CacheError(
                f"{self.folder} still misses {len(self.missing)} of {len(self.shard_slices)} shards"
            )
        shards = [self._open(index) for index in range(len(self.shard_slices))]
        manifest = derive_manifest(
            self._identity, shards, untrained=self._untrained, label_names=self._label_names
        )
        record = json.dumps(dict(provenance), indent=1, sort_keys=True, allow_nan=False) + "\n"
        with refusing_unwritable(self.folder):
            publish_bytes(self.folder / PROVENANCE_NAME, record.encode("ascii"))
            publish_bytes(self.folder / MANIFEST_NAME, manifest.to_bytes())
        return manifest

    def _prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)
        sweep_temporaries(self.folder)
        probe = self.folder / f".probe{TEMPORARY_SUFFIX}"  # refuses a read-only folder before any work
        probe.touch()
        probe.unlink()
        if self._overwrite:
            self._drop()
        self.missing = tuple(index for index in range(len(self.shard_slices)) if not self._is_whole(index))
        if self.missing:
            # A manifest stands for a whole set: while shards are made anew there is none.
            (self.folder / MANIFEST_NAME).unlink(missing_ok=True)

    def _drop(self) -> None:
        shards = [shard_name(index) for index in range(len(self.shard_slices))]
        for name in (
            MANIFEST_NAME,
            PROVENANCE_NAME,
            *shards,
        ):  # the manifest first: what follows is unfinished
            (self.folder / name).unlink(missing_ok=True)

    def _is_whole(self, index: int) -> bool:
        path = self.folder / shard_name(index)
        if not path.exists() and not path.is_symlink():
            return False
        try:
            shard = self._open(index)
            problem = self._misfit(shard.features.shape[1], shard.optional, rows=shard.rows)
            if problem:
                raise CorruptError(f"{path} {problem}")
        except CorruptError as error:
            path.unlink()
            self.notes += (f"{error.message}; removed, it will be made again",)
            return False
        return True

    def _open(self, index: int) -> Shard:
        shard = open_shard(self.folder / shard_name(index))
        samples = _length(self.shard_slices[index])
        shard.require(key=self._key, index=index, dtype=self._dtype, samples=samples)
        return shard

    def _misfit(self, dim: int, optional: frozenset[str], *, rows: int) -> str | None:
        """Say what of a shard's form differs from the first shard's; one without rows has no columns."""
        if self._dim is None:
            self._dim = dim
        if rows and self._optional is None:
            self._optional = optional
        if dim != self._dim:
            return f"has dim {dim}, the shards before it {self._dim}"
        if rows and optional != self._optional:
            return f"has the columns {sorted(optional)}, the shards before it {sorted(self._optional or ())}"
        return None


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)
