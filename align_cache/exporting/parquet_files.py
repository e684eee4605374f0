"""A Parquet file for each modality, a row group for each block of rows."""

from collections.abc import Callable, Sequence
from pathlib import Path

from align_cache.exporting.arrow_tables import batches, schema_of
from align_cache.exporting.embedded_table import EmbeddedTable
from align_cache.results import Record


def write_parquet(
    folder: Path, tables: Sequence[EmbeddedTable], description: Record, advance: Callable[[int], None]
) -> None:
    """Write ``image.parquet`` and ``text.parquet``."""
    for table in tables:
        write_rows(folder / f"{table.modality}.parquet", table, description, advance)


def write_rows(
    path: Path,
    table: EmbeddedTable,
    description: Record,
    advance: Callable[[int], None],
    *,
    embeddings: bool = True,
) -> None:
    """Write one table, with its embeddings or without them."""
    from pyarrow.parquet import ParquetWriter

    schema = schema_of(table, description, embeddings=embeddings)
    # Dictionaries and statistics of random floats would cost time and save nothing.
    words = [name for name, column in table.columns.items() if column.dtype.kind == "S"]
    with ParquetWriter(path, schema, compression="zstd", use_dictionary=words) as writer:
        for batch in batches(table, schema, advance):
            writer.write_batch(batch)
