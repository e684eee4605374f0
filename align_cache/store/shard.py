"""One shard: an HDF5 file behind a 512-byte block that carries the checksum of all that follows.

The block is HDF5's own "user block", so any HDF5 reader opens a shard. The file is built in memory and
written in one piece: a full disk is then an ordinary error, and the bytes are a function of the content.
"""

import errno
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from align_cache.errors import CacheError, CorruptError
from align_cache.files import is_plain_file
from align_cache.store.layout import FORMAT_VERSION, canonical_json

HEADER_BYTES = 512
ALIGNMENT_BYTES = 64
MAX_STRING_BYTES = 8_192
FEATURE_DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"), "float32": np.dtype("<f4"), "int32": np.dtype("<i4"),
}  # fmt: skip
"""What rows are stored as, by the name that the identity gives it; int32 are token ids."""
LABEL_DTYPE = np.dtype("<i8")
REQUIRED_COLUMNS = frozenset({"features", "sample_id", "split", "skipped_id", "skipped_reason"})
OPTIONAL_COLUMNS = frozenset({"group_id", "label", "text"})
ATTRIBUTES = frozenset({"format", "key", "index", "counts"})

Column: TypeAlias = NDArray[Any]

_HEADER = re.compile(rb"align-cache shard\nformat (\d{1,9})\nxxh3_128 ([0-9a-f]{32})\n\0+")
# What h5py raises on a file that is not what it says; the set is not documented anywhere.
_H5PY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class Shard:
    """One shard, opened: its arrays are read-only maps of the file."""

    path: Path
    xxh3_128: str
    key: str
    index: int
    counts: Mapping[str, int]
    columns: Mapping[str, Column]
    """``features`` [rows, dim], which may be token ids; strings as fixed-length UTF-8 bytes (numpy ``S``),
    ``label`` int64."""

    @property
    def features(self) -> Column:
        """The features, shape (rows, dim), in the stored dtype."""
        return self.columns["features"]

    @property
    def rows(self) -> int:
        """Rows in this shard."""
        return len(self.features)

    @property
    def optional(self) -> frozenset[str]:
        """Which of the optional columns are here."""
        return OPTIONAL_COLUMNS.intersection(self.columns)

    def require(self, *, key: str, index: int, dtype: str, samples: int) -> None:
        """Refuse a shard of another feature set, of another place in it, or with rows missing."""
        found = (self.key, self.index, self.features.dtype.name, self.rows + len(self.columns["skipped_id"]))
        for what, is_, expected in zip(
            ("key", "index", "dtype", "samples"), found, (key, index, dtype, samples), strict=True
        ):
            if is_ != expected:
                raise CorruptError(f"{self.path} belongs elsewhere: its {what} is {is_}, expected {expected}")


def encode_shard(*, key: str, index: int, columns: Mapping[str, Column], counts: Mapping[str, int]) -> bytes:
    """Return the whole content of a shard file; the same content gives the same bytes.

    Parameters
    ----------
    key, index
        The feature set's key and the shard's place in it.
    columns : mapping of name to array
        Little-endian ``features`` and ``label``; strings as numpy ``S`` of UTF-8 bytes.
    counts : mapping of str to int
        What was counted while the shard was made.
    """
    # libver is pinned and times are not tracked: nothing but the content decides the bytes.
    with h5py.File(
        "shard", "w", driver="core", backing_store=False, userblock_size=HEADER_BYTES,
        libver=("earliest", "v110"), alignment_threshold=1, alignment_interval=ALIGNMENT_BYTES,
    ) as file:  # fmt: skip
        for name in sorted(columns):
            file.create_dataset(name, data=_tagged(columns[name]), track_times=False)
        file.attrs["format"] = np.int64(FORMAT_VERSION)
        file.attrs["index"] = np.int64(index)
        file.attrs["key"] = _tagged(np.bytes_(key.encode("ascii")))
        file.attrs["counts"] = _tagged(np.bytes_(canonical_json(dict(counts))))
        file.flush()
        body: bytes = file.id.get_file_image()  # the user block is no part of the image
    return _header(xxhash.xxh3_128_hexdigest(body)) + body


def open_shard(path: Path, *, verify: bool = True) -> Shard:
    """Check a shard file and map it: first its bytes, then its structure, nothing taken on trust.

    Parameters
    ----------
    path : Path
        The file.
    verify : bool
        Whether to hold the bytes against the checksum. The structure is always checked.

    Raises
    ------
    CorruptError
        Naming the file and what is wrong with it.
    CacheError
        If a newer align-cache wrote it, or no more files can be mapped.
    """
    if not is_plain_file(path):
        there = path.is_symlink() or path.exists()
        raise CorruptError(f"{path} is not a regular file" if there else f"{path} is missing")
    try:
        raw = np.memmap(path, np.uint8, mode="r")
    except ValueError as error:  # mmap refuses an empty file
        raise CorruptError(f"{path} is empty") from error
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise CacheError(
            f"{path} cannot be mapped: this process holds as many maps as the system allows, one a shard",
            hint="raise it (sysctl vm.max_map_count), or extract with larger shards (--set shard_rows=16384)",
        ) from error
    digest = _stated_digest(path, raw[:HEADER_BYTES].tobytes())
    if verify and xxhash.xxh3_128_hexdigest(raw[HEADER_BYTES:].data) != digest:
        raise CorruptError(f"{path} is damaged: its bytes do not fit its checksum")
    try:
        with h5py.File(path, "r", locking=False) as file:
            columns = {name: _map_column(file, name, raw) for name in _column_names(file)}
            attributes = {name: _attribute(file, name) for name in sorted(ATTRIBUTES)}
        _check_lengths(columns)
        counts = _parse_counts(attributes["counts"])
        key, index = attributes["key"].decode("ascii"), int(attributes["index"])
    except _H5PY_ERRORS as error:
        raise CorruptError(f"{path} is not a shard: {error}") from error
    return Shard(path, digest, key, index, counts, columns)


def _header(digest: str) -> bytes:
    text = f"align-cache shard\nformat {FORMAT_VERSION}\nxxh3_128 {digest}\n"
    return text.encode("ascii").ljust(HEADER_BYTES, b"\0")


def _stated_digest(path: Path, header: bytes) -> str:
    match = _HEADER.fullmatch(header)
    if len(header) != HEADER_BYTES or match is None:
        raise CorruptError(f"{path} is damaged or no shard: its first {HEADER_BYTES} bytes are no header")
    if int(match[1]) > FORMAT_VERSION:
        raise CacheError(
            f"{path} has format {int(match[1])}, this align-cache reads up to {FORMAT_VERSION}",
            hint="pip install --upgrade align-cache",
        )
    return match[2].decode("ascii")


def _tagged(values: Any) -> Any:
    """Mark byte strings as UTF-8, as HDF5 wants it said; leave numbers alone."""
    if values.dtype.kind != "S":
        return values
    return np.asarray(values).astype(h5py.string_dtype("utf-8", max(values.dtype.itemsize, 1)))


def _column_names(file: Any) -> list[str]:
    names = list(file)
    unknown = [name for name in names if name not in REQUIRED_COLUMNS | OPTIONAL_COLUMNS]
    missing = sorted(REQUIRED_COLUMNS - set(names))
    if unknown or missing:
        raise ValueError(f"unknown datasets {unknown[:5]}, missing datasets {missing}")
    return names


def _map_column(file: Any, name: str, raw: NDArray[np.uint8]) -> Column:
    """Map one dataset, refusing every form of storage but plain bytes inside this file."""
    link = file.id.links.get_info(name.encode("utf-8"))
    if link.type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a soft or external link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    _check_storage(name, dataset.id.get_create_plist())
    dtype, shape = _checked_dtype(name, dataset), tuple(map(int, dataset.shape or ()))
    if len(shape) != (2 if name == "features" else 1):
        raise ValueError(f"{name} has shape {shape}")
    size = dtype.itemsize * math.prod(shape)
    if size == 0:  # HDF5 gives empty datasets no place in the file
        return np.empty(shape, dtype)
    # Asked of HDF5, because get_offset() of unwritten data is None or, behind a user block, nonsense.
    if dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_ALLOCATED:
        raise ValueError(f"{name} with shape {shape} was never written")
    offset = int(dataset.id.get_offset())
    if offset % ALIGNMENT_BYTES or offset + size > len(raw):
        raise ValueError(f"{name} with shape {shape} does not lie aligned inside the file")
    return np.ndarray(shape, dtype, buffer=raw, offset=offset)


def _check_storage(name: str, properties: Any) -> None:
    if properties.get_external_count():
        raise ValueError(f"{name} is stored in another file")
    layouts = {h5py.h5d.CHUNKED: "chunked", h5py.h5d.VIRTUAL: "virtual", h5py.h5d.COMPACT: "compact"}
    if properties.get_layout() != h5py.h5d.CONTIGUOUS:
        raise ValueError(f"{name} is {layouts.get(properties.get_layout(), 'unknown')}, expected contiguous")
    if properties.get_nfilters():
        raise ValueError(f"{name} has filters, expected none")


def _checked_dtype(name: str, dataset: Any) -> np.dtype[Any]:
    """Return the dtype of a dataset if it is, to the byte order and padding, one that the format has."""
    found = dataset.dtype
    if name == "features":
        allowed = list(FEATURE_DTYPES.values())
    elif name == "label":
        allowed = [LABEL_DTYPE]
    else:
        width = min(max(found.itemsize, 1), MAX_STRING_BYTES)
        allowed = [h5py.string_dtype("utf-8", width)]
    stored = dataset.id.get_type()
    if not any(stored == h5py.h5t.py_create(dtype, logical=True) for dtype in allowed):
        raise ValueError(
            f"{name} has dtype {found.str}, expected {' or '.join(dtype.str for dtype in allowed)}"
        )
    plain: np.dtype[Any] = np.dtype(found.str)  # without the mark that h5py puts on strings
    return plain


def _attribute(file: Any, name: str) -> Any:
    attribute = file.attrs.get_id(name)
    expected = "S" if name in ("key", "counts") else "i"
    if attribute.shape != () or attribute.dtype.kind != expected:
        raise ValueError(f"the attribute {name} is no scalar of kind {expected}")
    return file.attrs[name]


def _check_lengths(columns: Mapping[str, Column]) -> None:
    rows, skipped = len(columns["features"]), len(columns["skipped_id"])
    for name, column in columns.items():
        expected = skipped if name.startswith("skipped_") else rows
        if len(column) != expected:
            raise ValueError(f"{name} has {len(column)} rows, expected {expected}")


def _parse_counts(data: bytes) -> dict[str, int]:
    counts = json.loads(data)
    if not isinstance(counts, dict) or any(type(value) is not int for value in counts.values()):
        raise ValueError("the attribute counts is no JSON object of integers")
    return counts
