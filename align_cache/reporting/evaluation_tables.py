"""All tables of an evaluation, those of the permutation null among them."""

from __future__ import annotations

from align_cache.reporting.records import dig
from align_cache.reporting.tables import (
    METRICS,
    SHORT_PAIRS,
    SPACES,
    Record,
    Table,
    alignment_table,
    distribution_table,
    hypothesis_table,
    part_of,
    probe_table,
    retrieval_table,
    where,
)
from align_cache.reporting.wording import NOT_MEASURED, count, number, p_value


def evaluation_tables(record: Record) -> list[Table]:
    """Return the tables of an evaluation record, in reading order."""
    probe = probe_table(record)
    return [
        retrieval_table(record),
        alignment_table(record),
        *null_tables(record),
        hypothesis_table(record),
        distribution_table(record),
        *([] if probe is None else [probe]),
    ]


def null_tables(record: Record) -> list[Table]:
    """Return what shuffling one side of each pair gives, a table a space; none where nothing was shuffled."""
    tables = []
    for space in SPACES:
        part = part_of(record, space)
        rows = tuple(
            (METRICS.get(metric, metric), SHORT_PAIRS.get(pair, pair), *_cells(part, metric, pair))
            for metric, pairs in (part.get("null") or {}).items()
            for pair in pairs
        )
        if rows:
            columns = ("metric", "pair", "value", "shuffled", "sd", "p", "calibrated")
            note = f"{count(record.get('permutations'))} shuffles; ref: reference; {where(record, k=True)}"
            tables.append(Table(f"Permutation null, {space}", columns, rows, note, label_columns=2))
    return tables


def _cells(part: Record, metric: str, pair: str) -> tuple[str, ...]:
    found = part["null"][metric][pair]
    level = (number(found.get("chance")), number(found.get("chance_sd")))
    p = NOT_MEASURED if found.get("p") is None else p_value(found["p"])
    return (number(dig(part, "alignment", metric, pair)), *level, p, number(found.get("calibrated")))
