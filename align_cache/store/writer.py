"""Writing a feature set: shard by shard, each whole or absent, the manifest last."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import BusyError, CacheError, CorruptError
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
from align_cache.store.manifest import Manifest, published_checksums
from align_cache.store.provenance import provenance_bytes
from align_cache.store.shard import FEATURE_DTYPES, OPTIONAL_COLUMNS, Shard, encode_shard, open_shard
from align_cache.store.tokens import check_stored_tokens

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
    shards : collection of int, optional
        The shards to be written here, while other processes write the others: the lock is shared with them,
        what is theirs is left alone, and :meth:`finish_if_last` takes the place of :meth:`finish`. None: all,
        and alone.

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
        shards: Collection[int] | None = None,
    ) -> None:
        self.folder = feature_set_folder(cache_dir, identity)
        self.shard_slices = shard_slices(identity)
        self._shared = shards is not None
        self._own = tuple(range(len(self.shard_slices))) if shards is None else tuple(sorted(shards))
        self.missing = self._own
        self.notes = ()
        self._cache_dir = cache_dir
        self._identity = plain(identity)
        self._key = identity_key(identity)
        structure = parse_identity(identity)
        self._dtype, self._tokens = structure.storage.dtype, structure.tokens
        self._untrained = untrained
        self._label_names = tuple(label_names)
        self._overwrite = overwrite
        self._dim: int | None = None
        self._optional: frozenset[str] | None = None
        self._held = ExitStack()

    def __enter__(self) -> FeatureSetWriter:
        with ExitStack() as stack:
            stack.enter_context(holding(self.folder, shared=self._shared))
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
        features: NDArray[Any],
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
            Unit-norm rows, in the order of the dataset; of a set of token ids int32, shape (n, max_length).
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
            If a row is not unit-norm, or no row of token ids, an id or text cannot be stored, rows are
            missing from the slice, or the disk is full. Nothing is left behind; earlier shards stay.
        """
        if index not in self.missing:
            raise CacheError(f"shard {index} of {self.folder} is not missing; missing are {self.missing}")
        expected = _length(self.shard_slices[index])
        if len(sample_id) + len(skipped) != expected:
            raise CacheError(
                f"shard {index} got {len(sample_id)} rows and {len(skipped)} skipped, expected {expected}"
            )
        columns = build_columns(
            features=features, dtype=self._dtype, tokens=self._tokens, sample_id=sample_id,
            group_id=group_id, label=label, split=split, text=text, skipped=skipped,
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
        record = provenance_bytes(provenance, key=self._key)
        with refusing_unwritable(self.folder):
            publish_bytes(self.folder / PROVENANCE_NAME, record)
            publish_bytes(self.folder / MANIFEST_NAME, manifest.to_bytes())
        return manifest

    def finish_if_last(self, provenance: Mapping[str, Any]) -> Manifest | None:
        """Leave the set; publish its manifest if every shard is there by now and nobody else is at work.

        For a writer of some ``shards``. Of the processes that share a set, the last to leave finds all of it
        and nobody beside it, takes the lock alone, and checks and publishes as a writer of the whole would.

        Parameters
        ----------
        provenance : mapping
            As :meth:`finish` takes it.

        Returns
        -------
        Manifest, or None where shards are :meth:`absent` or another process still holds the set, which then
        publishes it.

        Raises
        ------
        CacheError
            As :meth:`finish`. A damaged shard is removed, told in ``notes`` and :meth:`absent` from then on.
        """
        self.notes = ()
        self._held.close()
        if self.absent():
            return None
        whole = FeatureSetWriter(
            self._cache_dir, self._identity, untrained=self._untrained, label_names=self._label_names
        )
        try:
            with whole:
                self.notes = whole.notes
                return None if whole.missing else whole.finish(provenance)
        except BusyError:
            return None

    def absent(self) -> tuple[int, ...]:
        """Return the shards that are not there now, whoever is to write them."""
        there = {path.name for path in self.folder.iterdir()}
        return tuple(index for index in range(len(self.shard_slices)) if shard_name(index) not in there)

    def _prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)
        if not self._shared:
            sweep_temporaries(self.folder)  # all of them are left over: nobody else writes
        probe = self.folder / f".probe{TEMPORARY_SUFFIX}"  # refuses a read-only folder before any work
        probe.touch()
        probe.unlink(missing_ok=True)
        if self._overwrite:
            self._drop()
        published = published_checksums(self.folder, key=self._key)
        self.missing = tuple(index for index in self._own if not self._is_whole(index, published))
        if self.missing:
            # A manifest stands for a whole set: while shards are made anew there is none.
            (self.folder / MANIFEST_NAME).unlink(missing_ok=True)

    def _drop(self) -> None:
        # The manifest first: what follows is unfinished.
        for name in (MANIFEST_NAME, PROVENANCE_NAME, *(shard_name(index) for index in self._own)):
            (self.folder / name).unlink(missing_ok=True)

    def _is_whole(self, index: int, published: Mapping[str, str]) -> bool:
        path = self.folder / shard_name(index)
        if not path.exists() and not path.is_symlink():
            return False
        try:
            shard = self._open(index)
            problem = self._misfit(shard.features.shape[1], shard.optional, rows=shard.rows)
            if published.get(path.name, shard.xxh3_128) != shard.xxh3_128:
                problem = "is another shard than the one that was published"
            if problem:
                raise CorruptError(f"{path} {problem}")
        except CorruptError as error:
            path.unlink(missing_ok=True)  # a process with the same shards may have been faster
            self.notes += (f"{error.message}; removed, it will be made again",)
            return False
        return True

    def _open(self, index: int) -> Shard:
        shard = open_shard(self.folder / shard_name(index))
        samples = _length(self.shard_slices[index])
        shard.require(key=self._key, index=index, dtype=self._dtype, samples=samples)
        if self._tokens is not None:
            check_stored_tokens(shard, self._tokens)
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
