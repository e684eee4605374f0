"""One file for ``numpy.load``: embeddings and columns as arrays, written block by block."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from align_cache.exporting.embedded_table import EmbeddedTable
from align_cache.results import Record


def write_npz(
    folder: Path, tables: Sequence[EmbeddedTable], description: Record, advance: Callable[[int], None]
) -> None:
    """Write ``embeddings.npz``, stored as it is: arrays ``<modality>_<column>`` and ``description``, JSON."""
    with ZipFile(folder / "embeddings.npz", "x") as archive:
        for table in tables:
            blocks = _told(table, advance)
            shape = (len(table), table.dim)
            _add(archive, f"{table.modality}_embeddings", np.dtype("<f4"), shape, blocks)
            for name in table.columns:
                _add_column(archive, table, name)
        said = np.array(json.dumps(description))
        _add(archive, "description", said.dtype, (), [said])


def _told(table: EmbeddedTable, advance: Callable[[int], None]) -> Iterator[NDArray[np.float32]]:
    for part in table.parts():
        yield table.embeddings(part)
        advance(part.stop - part.start)


def _add_column(archive: ZipFile, table: EmbeddedTable, name: str) -> None:
    """Add a column; text is as wide as the longest value, which is found first."""
    dtype = table.columns[name].dtype
    if dtype.kind == "S":
        longest = (np.strings.str_len(table.values(name, part)).max() for part in table.parts())
        dtype = np.dtype(f"<U{max(1, *longest)}")
    _add(archive, f"{table.modality}_{name}", dtype, (len(table),), _cast(table, name, dtype))


def _cast(table: EmbeddedTable, name: str, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    return (table.values(name, part).astype(dtype, copy=False) for part in table.parts())


def _add(
    archive: ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    blocks: Iterator[NDArray[Any]] | Sequence[NDArray[Any]],
) -> None:
    """Add one array, whose blocks stand one after another; the date in the archive is always the same."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, described)
        for block in blocks:
            file.write(block.tobytes())
