"""Embedded tables as Arrow record batches, for every format that Arrow writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from align_cache.exporting.embedded_table import EmbeddedTable
from align_cache.results import Record

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDINGS = "embeddings"


def schema_of(table: EmbeddedTable, description: Record, *, embeddings: bool = True) -> pa.Schema:
    """Return the columns: ids and words as strings, labels as int64, embeddings as lists of one length."""
    import pyarrow as pa

    fields = [
        pa.field(name, pa.string() if column.dtype.kind == "S" else pa.int64())
        for name, column in table.columns.items()
    ]
    if embeddings:
        fields.append(pa.field(EMBEDDINGS, pa.list_(pa.float32(), table.dim), nullable=False))
    return pa.schema(fields, metadata={"align_cache": json.dumps(description)})


def batches(
    table: EmbeddedTable, schema: pa.Schema, advance: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    """Make the rows, block after block; text that is empty becomes null."""
    import pyarrow as pa

    for part in table.parts():
        columns = {}
        for name in table.columns:
            values = table.values(name, part).tolist()
            columns[name] = pa.array(
                [None if value == "" else value for value in values], schema.field(name).type
            )
        if EMBEDDINGS in schema.names:
            flat = pa.array(table.embeddings(part).reshape(-1))
            columns[EMBEDDINGS] = pa.FixedSizeListArray.from_arrays(flat, table.dim)
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)
        advance(part.stop - part.start)
