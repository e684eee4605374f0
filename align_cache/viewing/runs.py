"""The runs of a cache and their curves, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence

from align_cache.errors import AlignCacheError
from align_cache.judging.judged_run import list_entry
from align_cache.reporting.headline import warnings
from align_cache.reporting.run_list import list_cells
from align_cache.results import Record, Run
from align_cache.run_records import DIRECTIONS, RECALLS, dig, read_run

SHOWN = 200
"""Newest runs in the table; a sweep leaves thousands."""
LOSSES = {"train": "Training loss", "val": "Validation loss"}


def runs_table(runs: Sequence[Run]) -> Record:
    """Return the newest runs as rows of the table, newest first; one that cannot be read says why."""
    shown = list(reversed(runs))[:SHOWN]
    return {"runs": [_row(run) for run in shown], "total": len(runs)}


def _row(run: Run) -> Record:
    try:
        entry = list_entry(run)
    except AlignCacheError as error:
        return {"id": run.id, "error": error.message}
    _, data, adapter, seed, status, best, *recalls = list_cells(entry)
    return {
        "id": run.id,
        "created": entry.get("created"),
        "cells": [status, best, *recalls, adapter, seed, data],
        "running": status == "running",
    }


def curves(run: Run) -> Record:
    """Return what was logged at each epoch: both losses, and recall at 1, 5 and 10 both ways.

    Returns
    -------
    dict
        ``curves``: name to ``title`` and ``points``, pairs of epoch and value; what an epoch did not measure
        has no point there. ``warnings``: what has to be known before any number.

    Raises
    ------
    RunError
        If the run folder is damaged.
    """
    records = read_run(run.folder)
    wanted: dict[str, tuple[str, tuple[str, ...]]]
    wanted = {f"{part}_loss": (title, (part, "loss")) for part, title in LOSSES.items()}
    for way, title in DIRECTIONS.items():
        wanted |= {f"r{k}_{way}": (f"Recall at {k}, {title}", ("retrieval", way, f"r{k}")) for k in RECALLS}
    found: Record = {}
    for name, (title, path) in wanted.items():
        values = [(epoch["epoch"], dig(epoch, *path)) for epoch in records.epochs]
        found[name] = {"title": title, "points": [point for point in values if point[1] is not None]}
    return {"curves": found, "best_epoch": records.best_epoch, "warnings": warnings(records)}
