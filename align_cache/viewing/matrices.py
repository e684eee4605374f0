"""The matrices of alignment, as the page shows them: modality by modality, before training and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align_cache.reporting.headline import warnings
from align_cache.reporting.heatmap import COLUMNS, ROWS
from align_cache.reporting.tables import SPACES, metric_title, part_of, where
from align_cache.results import Record, Run
from align_cache.run_records import dig, read_run


def matrices(run: Run) -> Record:
    """Return each alignment metric of the latest evaluation, or of the validation while there is none.

    Returns
    -------
    dict
        ``metrics``: of each its ``title``, ``chance`` and ``spaces``; a space (features, embeddings) holds a
        ``value`` and its 95% ``interval`` by pair, both None where not measured, and is None as a whole
        where nothing of it was. ``rows`` and ``columns`` name the modalities that were measured,
        ``where`` what was measured on, ``warnings`` what has to be known before any number.

    Raises
    ------
    RunError
        If the run folder is damaged.
    """
    records = read_run(run.folder)
    judged = records.judged
    parts = {space: part_of(judged, space) for space in SPACES}
    names = dict.fromkeys(metric for part in parts.values() for metric in part.get("alignment") or {})
    measured = {
        pair for part in parts.values() for cells in (part.get("alignment") or {}).values() for pair in cells
    }
    return {
        "rows": [row for row in ROWS if any(f"{column}_{row}" in measured for column in COLUMNS)],
        "columns": [column for column in COLUMNS if any(f"{column}_{row}" in measured for row in ROWS)],
        "where": where(judged, k=True),
        "epoch": judged.get("epoch"),
        "evaluated": records.evaluation is not None,
        "warnings": warnings(records),
        "metrics": [
            {
                "title": metric_title(metric),
                "chance": dig(judged, "chance", metric),
                "spaces": {space: _cells(part, metric) for space, part in parts.items()},
            }
            for metric in names
        ],
    }


def _cells(part: Mapping[str, Any], metric: str) -> Record | None:
    measured = dig(part, "alignment", metric)
    if not measured:
        return None
    bounds = dig(part, "intervals", metric) or {}
    return {pair: {"value": value, "interval": bounds.get(pair)} for pair, value in measured.items()}
