"""A table as GitHub reads it."""

from collections.abc import Iterator

from align_cache.reporting.tables import Table


def markdown(table: Table) -> Iterator[str]:
    """Yield the lines of a table, labels to the left and numbers to the right, and its note."""
    yield f"| {' | '.join(map(_cell, table.columns))} |"
    rules = ("---" if index < table.label_columns else "---:" for index in range(len(table.columns)))
    yield f"| {' | '.join(rules)} |"
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in table.rows)
    yield f"\n{table.note[:1].upper()}{table.note[1:]}.\n" if table.note else ""


def _cell(text: str) -> str:
    """Keep a cell in its place: a bar or a line break would end it."""
    return " ".join(text.split()).replace("|", "\\|")
