"""An index of each modality that faiss reads, and beside it what its rows are."""

from collections.abc import Callable, Sequence
from pathlib import Path

from align_cache.exporting.embedded_table import EmbeddedTable
from align_cache.exporting.parquet_files import write_rows
from align_cache.results import Record


def write_faiss(
    folder: Path, tables: Sequence[EmbeddedTable], description: Record, advance: Callable[[int], None]
) -> None:
    """Write ``image.faiss`` and ``text.faiss``, exact, by inner product, and the rows as Parquet.

    Embeddings are unit-norm, so that an inner product is a cosine. faiss holds an index in memory until it
    is written: 4 bytes for each component of each row.
    """
    import faiss

    for table in tables:
        index = faiss.IndexFlatIP(table.dim)
        for part in table.parts():
            index.add(table.embeddings(part))
            advance(part.stop - part.start)
        faiss.write_index(index, str(folder / f"{table.modality}.faiss"))
        write_rows(folder / f"{table.modality}.parquet", table, description, lambda n: None, embeddings=False)
