"""What was measured of the pairs that a picture shows, as a table."""

from __future__ import annotations

from align_cache.reporting.tables import Record, Table
from align_cache.reporting.wording import number, percent
from align_cache.run_records import SIMILARITY

_NEAREST = {
    "own_pair": "nearest point is the pair's other half",
    "other_modality": "nearest point is of the other modality",
}


def pairs_table(record: Record) -> Table:
    """Return how drawn pairs mix and how alike they are, of a record of ``align-cache plot tsne``."""
    mixed, cosines = record["mixing"], record["similarity"]
    rows = [(label, percent(mixed[key]), percent(mixed[f"chance_{key}"])) for key, label in _NEAREST.items()]
    rows += [(label, number(cosines[key]), "") for key, label in SIMILARITY.items()]
    of = "raw features" if record["epoch"] is None else f"epoch {record['epoch']}"
    note = f"{record['split']} split, {of}, N = {record['n_pairs']:,} pairs, measured before the layout"
    return Table("Pairs drawn", ("", "value", "chance"), tuple(rows), note)
