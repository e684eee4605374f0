"""All tables of an evaluation; here those of the hypotheses and of the permutation null."""

from __future__ import annotations

from align_cache.reporting.tables import (
    HYPOTHESES,
    METRICS,
    SHORT_PAIRS,
    SPACES,
    Record,
    Table,
    alignment_table,
    distribution_table,
    part_of,
    probe_table,
    retrieval_table,
    where,
)
from align_cache.reporting.wording import NOT_MEASURED, count, interval, number, p_value, text
from align_cache.reporting.zero_shot import zero_shot_tables
from align_cache.run_records import dig


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
        *zero_shot_tables(record),
    ]


def hypothesis_table(record: Record) -> Table:
    """Return the margins of H1 and H2 against both baselines, with interval, p-value and verdict."""
    judged: Record = record.get("hypotheses") or {}
    rows = [
        (METRICS.get(metric, metric), space, key.upper(), *_margin_cells(dig(judged, space, metric, key)))
        for metric in dict.fromkeys(metric for metrics in judged.values() for metric in metrics)
        for space in reversed(SPACES)
        if metric in (judged.get(space) or {})
        for key in HYPOTHESES
    ]
    columns = ("metric", "against", "", "margin", "95% interval", "p", "verdict")
    rows = rows or [(NOT_MEASURED, "", "H1, H2", *("",) * 4)]
    note = "; ".join(
        [*(f"{key.upper()}: {claim}" for key, claim in HYPOTHESES.items()), where(record, k=True)]
    )
    return Table("Hypotheses", columns, tuple(rows), note, label_columns=3)


def _margin_cells(test: Record | None) -> tuple[str, ...]:
    if test is None:
        return ("", NOT_MEASURED, "", "")
    p = test.get("p")
    return (
        number(test.get("margin"), signed=True),
        interval(test.get("interval"), signed=True),
        "" if p is None else p_value(p),
        test.get("verdict") or "",
    )


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
            note = f"{_shuffles(record)}; ref: reference; {where(record, k=True)}"
            tables.append(Table(f"Permutation null, {space}", columns, rows, note, label_columns=2))
    return tables


def calibrated_table(record: Record) -> Table | None:
    """Return the calibrated scores of the embeddings, a line a metric; None where nothing was shuffled."""
    null = part_of(record, "embeddings").get("null")
    if not null:
        return None
    pairs = list(dict.fromkeys(pair for found in null.values() for pair in found))
    rows = tuple(
        (METRICS.get(metric, metric), *(_calibrated(found.get(pair)) for pair in pairs))
        for metric, found in null.items()
    )
    columns = ("metric", *(SHORT_PAIRS.get(pair, pair) for pair in pairs))
    note = f"in brackets: p; {_shuffles(record)}; ref: reference; {where(record, k=True)}"
    return Table("Calibrated alignment, embeddings", columns, rows, note)


def _calibrated(found: Record | None) -> str:
    if found is None:
        return NOT_MEASURED
    return f"{number(found.get('calibrated'))} ({_p(found)})"


def _p(found: Record) -> str:
    return NOT_MEASURED if found.get("p") is None else p_value(found["p"])


def _shuffles(record: Record) -> str:
    return f"{count(record.get('permutations'))} shuffles, seed {text(record.get('seed'))}"


def _cells(part: Record, metric: str, pair: str) -> tuple[str, ...]:
    found = part["null"][metric][pair]
    level = (number(found.get("chance")), number(found.get("chance_sd")))
    return (number(dig(part, "alignment", metric, pair)), *level, _p(found), number(found.get("calibrated")))
