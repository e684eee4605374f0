"""Stress tests as tables: recalls both ways, without noise and under each kind and level of it."""

from __future__ import annotations

from align_cache.judging.comparison import Spread
from align_cache.judging.stress_comparison import StressComparison
from align_cache.judging.stress_record import Place, curves
from align_cache.reporting.comparison_words import setting
from align_cache.reporting.tables import Table, chance_recall, where
from align_cache.reporting.wording import percent, percents
from align_cache.run_records import DIRECTIONS, RECALLS, Record


def stress_tables(record: Record) -> list[Table]:
    """Return one run's table each way: a row a level of noise, the clean pairs first and chance last."""
    return [_run_table(record, way, label) for way, label in DIRECTIONS.items()]


def _run_table(record: Record, way: str, label: str) -> Table:
    rows = [("no noise", "", *_cells(record["clean"][way]))]
    for on, kind, points in curves(record):
        for point in points:
            cells = _cells(point["retrieval"][way])
            rows.append((f"{kind}, {on}", level_label(on, point["level"]), *cells))
    rows.append(("chance", "", *_chance_cells(record["clean"][way])))
    columns = (cell for k in RECALLS for cell in (f"R@{k}", "95%"))
    note = f"in percent; 95%: intervals over images; {where(record)}"
    return Table(f"Under noise, {label}", ("noise", "level", *columns), tuple(rows), note, label_columns=2)


def stress_comparison_tables(comparison: StressComparison) -> list[Table]:
    """Return a table each way: a row a level of noise, a column a group of runs."""
    labels = group_labels(comparison)
    numbers = [str(index) for index in range(1, len(labels) + 1)]
    groups = [
        (number, label, str(len(group.runs)))
        for number, label, group in zip(numbers, labels, comparison.groups, strict=True)
    ]
    tables = [Table("Groups", ("group", "what differs", "n"), tuple(groups), label_columns=2)]
    for way, label in DIRECTIONS.items():
        rows = []
        for place in (None, *comparison.places):
            cells = (_spread_cell(group.recall(place, way, 1)) for group in comparison.groups)
            rows.append((*_place_labels(place), *cells))
        level = percent(chance_recall(comparison.record["clean"][way], 1)).removesuffix("%")
        note = f"in percent; mean ± sd over seeds; chance {level}; {where(comparison.record)}"
        columns = ("noise", "level", *(f"group {number}" for number in numbers))
        tables.append(Table(f"R@1 under noise, {label}", columns, tuple(rows), note, label_columns=2))
    return tables


def group_labels(comparison: StressComparison) -> list[str]:
    """Return what tells each group from the others: the settings that differ; of one group its first run."""
    labels = []
    for group in comparison.groups:
        told = ", ".join(f"{key} = {setting(value)}" for key, value in group.settings.items())
        labels.append(told or group.runs[0])
    return labels


def noise_title(kind: str) -> str:
    """Return a kind of noise for the head of a panel."""
    return "JPEG" if kind == "jpeg" else kind.capitalize()


def level_label(on: str, level: float) -> str:
    """Return a severity as a whole number, a rate in percent."""
    return f"{100 * level:.3g}%" if on == "captions" else f"{level:.0f}"


def _place_labels(place: Place | None) -> tuple[str, str]:
    if place is None:
        return "no noise", ""
    on, kind, level = place
    return f"{kind}, {on}", level_label(on, level)


def _spread_cell(spread: Spread) -> str:
    mean = _bare(spread.mean)
    return mean if spread.sd is None else f"{mean} ± {100 * spread.sd:.1f}"


def _cells(direction: Record) -> tuple[str, ...]:
    bounds = direction["intervals"]
    cells = ((_bare(direction[f"r{k}"]), percents(bounds[f"r{k}"])) for k in RECALLS)
    return tuple(cell for pair in cells for cell in pair)


def _chance_cells(direction: Record) -> tuple[str, ...]:
    return tuple(cell for k in RECALLS for cell in (_bare(chance_recall(direction, k)), ""))


def _bare(share: float) -> str:
    return percent(share).removesuffix("%")
