"""A folder for each modality that ``datasets.load_from_disk`` reads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from align_cache.exporting.arrow_tables import batches, schema_of
from align_cache.exporting.embedded_table import EmbeddedTable
from align_cache.results import Record


def write_datasets(
    folder: Path, tables: Sequence[EmbeddedTable], description: Record, advance: Callable[[int], None]
) -> None:
    """Write ``image/`` and ``text/``.

    Rows go to an Arrow file first, which the library maps and copies: none are held in memory.
    """
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo

    for table in tables:
        stream = folder / f"{table.modality}.arrow"
        schema = schema_of(table, description)
        with pa.OSFile(str(stream), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for batch in batches(table, schema, advance):
                writer.write_batch(batch)
        info = DatasetInfo(description=schema.metadata[b"align_cache"].decode("utf-8"))
        with _without_bars():
            Dataset.from_file(str(stream), info=info).save_to_disk(str(folder / table.modality))
        stream.unlink()


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the library's own bars away: rows are counted while they are embedded."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            enable_progress_bars()
