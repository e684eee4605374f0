"""The record of a stress test: what of two calls belongs together, and the curves that it holds."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, TypeAlias

from align_cache.results import Record

Place: TypeAlias = tuple[str, str, float]
"""What the noise is on, its kind and its level."""
_CONDITIONS = ("checkpoint", "epoch", "split", "n_images", "n_captions", "clean")
"""What has to be equal for the points of two calls to stand in one record."""


def merged(before: Record | None, record: Record) -> Record:
    """Add the points of an earlier record of the same pairs that were not measured again."""
    if before is None or any(before.get(name) != record[name] for name in _CONDITIONS):
        return record
    points = {place_of(point): point for point in (*before["points"], *record["points"])}
    notes = dict.fromkeys([*before["notes"], *record["notes"]])
    return {**record, "points": list(points.values()), "notes": list(notes)}


def curves(record: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Record]]]:
    """Yield what the noise is on, its kind, and its points by rising level."""
    ordered = sorted(record["points"], key=place_of)
    for (on, kind), points in groupby(ordered, lambda point: (point["on"], point["kind"])):
        yield on, kind, list(points)


def place_of(point: Mapping[str, Any]) -> Place:
    """Return what tells a point from the others of its record."""
    return point["on"], point["kind"], point["level"]
