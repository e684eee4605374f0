"""The runs of a cache as one table."""

from __future__ import annotations

from collections.abc import Sequence

from align_cache.reporting.tables import Record, Table
from align_cache.reporting.wording import percent
from align_cache.run_records import DIRECTIONS, dig


def list_table(entries: Sequence[Record]) -> Table:
    """Return one line a run: what was trained on what, how it ended, and its recall at 1 where evaluated."""
    columns = ("run", "data", "adapter", "seed", "status", "best", "i→t", "t→i")
    note = (
        "data: image, text → reference, * an untrained encoder; best: epoch of the best checkpoint; "
        "i→t, t→i: R@1 of the latest evaluation"
    )
    return Table("Runs", columns, tuple(list_cells(entry) for entry in entries), note, label_columns=5)


def list_cells(entry: Record) -> tuple[str, ...]:
    """Return a run's line of the table."""
    image, text, reference = (_encoder(entry.get(role)) for role in ("image", "text", "reference"))
    data = f"{entry.get('dataset')}: {image}, {text} → {reference}"
    recalls = (dig(entry, "recall_at_1", way) for way in DIRECTIONS)
    return (
        *(str(entry.get("id")), data, str(entry.get("adapter"))),
        *(str(entry.get("seed")), str(entry.get("status")), str(entry.get("best_epoch") or "")),
        *("" if recall is None else percent(recall) for recall in recalls),
    )


def _encoder(features: Record | None) -> str:
    if features is None:
        return "none"
    return f"{features['encoder']}{'*' if features.get('untrained') else ''}"
