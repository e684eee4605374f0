"""A comparison of runs as small tables, the same for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from align_cache.judging.comparison import Comparison, Difference, Group
from align_cache.reporting.comparison_words import (
    TRAINING,
    parts,
    setting,
    share_or_number,
    spread,
    spread_note,
    where,
    words,
)
from align_cache.reporting.tables import HYPOTHESES, METRICS, PAIRS, SHORT_PAIRS, SPACES, Table
from align_cache.reporting.wording import NOT_MEASURED, count, p_value
from align_cache.run_records import DIRECTIONS, RECALLS

_MARGIN_NOTE = "supported: runs whose own 95% interval over items lies above zero"
_SETTINGS_WIDTH = 56
"""Columns of the terminal that settings may take; wider ones share one cell."""
_SHORT_WAYS = {"image_to_text": "i→t", "text_to_image": "t→i"}


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of a comparison, in reading order; each fits eighty columns."""
    return [table for tables in comparison_sections(comparison).values() for table in tables]


def comparison_sections(comparison: Comparison) -> dict[str, list[Table]]:
    """Return the same tables under the headings of a page."""
    sections = {
        "Groups": [_settings_table(comparison)],
        "Retrieval": [_retrieval_table(comparison)],
        "Alignment": [*_alignment_tables(comparison)],
        "Hypotheses": [*_margin_tables(comparison)],
        "Loss and spread": [_spread_table(comparison), *_similarity_tables(comparison)],
        "Classes": [*_probe_tables(comparison), *_zero_shot_tables(comparison)],
        "Difference": [] if comparison.paired is None else [_paired_table(comparison.paired)],
        "Left out": [_left_out_table(comparison)] if comparison.left_out else [],
    }
    return {heading: tables for heading, tables in sections.items() if tables}


def _settings_table(comparison: Comparison) -> Table:
    """Return what tells the groups apart; a setting that is the same everywhere is not in it."""
    columns = tuple(comparison.groups[0].settings)
    rows = [tuple(setting(group.settings[key]) for key in columns) for group in comparison.groups]
    if sum(2 + max(map(len, cells)) for cells in zip(columns, *rows, strict=True)) > _SETTINGS_WIDTH:
        assigned = (zip(columns, row, strict=True) for row in rows)
        rows = [(", ".join(f"{key} = {value}" for key, value in row),) for row in assigned]
        columns = ("settings",)
    lines = zip(_labelled(comparison), rows, strict=True)
    return Table(
        "Groups",
        ("group", *columns, "seeds", "n"),
        tuple((label, *row, *_seeds(group)) for (label, group), row in lines),
        spread_note(comparison),
        label_columns=2 + len(columns),
    )


def _seeds(group: Group) -> tuple[str, str]:
    return ", ".join(str(run.seed) for run in group.runs), str(len(group.runs))


def _retrieval_table(comparison: Comparison) -> Table:
    names = [f"retrieval.{way}.r{k}" for way in DIRECTIONS for k in RECALLS]
    columns = (f"{short} R@{k}" for short in _SHORT_WAYS.values() for k in RECALLS)
    rows = tuple((label, *_cells(group, names)) for label, group in _labelled(comparison))
    return Table("Retrieval, %", ("group", *columns), rows, where(comparison))


def _alignment_tables(comparison: Comparison) -> Iterator[Table]:
    for metric in parts(comparison, "alignment", 1):
        title = f"{METRICS.get(metric, metric)} of the embeddings"
        yield _pairs_table(comparison, "alignment", metric, title, where(comparison, metric))
        if metric in parts(comparison, "calibrated", 1):
            note = "; ".join([_null_note(comparison, metric), where(comparison, metric)])
            yield _pairs_table(comparison, "calibrated", metric, f"Calibrated {title}", note)


def _pairs_table(comparison: Comparison, family: str, metric: str, title: str, note: str) -> Table:
    names = [f"{family}.{metric}.{pair}" for pair in PAIRS]
    rows = tuple((label, *_cells(group, names)) for label, group in _labelled(comparison))
    return Table(title, ("group", *SHORT_PAIRS.values()), rows, note)


def _null_note(comparison: Comparison, metric: str) -> str:
    """Say what the calibrated scores of a metric rest on: shuffles, and the largest p of any pair and run."""
    runs = [run for group in comparison.groups for run in group.runs]
    shuffles = sorted({run.permutations for run in runs if run.permutations})
    p = [value for run in runs for name, value in run.p_values.items() if name.split(".")[1] == metric]
    return f"{' or '.join(map(count, shuffles))} shuffles; p at most {p_value(max(p))}"


def _spread_table(comparison: Comparison) -> Table:
    rows = tuple((label, *_cells(group, list(TRAINING))) for label, group in _labelled(comparison))
    return Table("Loss and spread", ("group", *TRAINING.values()), rows, where(comparison))


def _similarity_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield one table of cosines; none of runs that were evaluated before they were measured."""
    names = [name for name in comparison.names if name.startswith("similarity.")]
    if names:
        rows = tuple((label, *_cells(group, names)) for label, group in _labelled(comparison))
        columns = ("group", *(words(name)[1] for name in names))
        yield Table("Cosine similarity", columns, rows, where(comparison))


def _margin_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield one table a metric: both margins, both baselines, and in how many runs each is supported."""
    for metric in parts(comparison, "hypotheses", 2):
        rows = []
        for label, group in _labelled(comparison):
            for baseline in reversed(SPACES):
                names = [f"hypotheses.{baseline}.{metric}.{key}" for key in HYPOTHESES]
                cells = zip(_cells(group, names), (_supported(group, name) for name in names), strict=True)
                rows.append((label, baseline, *(cell for pair in cells for cell in pair)))
        columns = ("group", "against", "H1 margin", "supported", "H2 margin", "supported")
        title = f"H1 and H2 under {METRICS.get(metric, metric)}"
        note = "; ".join([_MARGIN_NOTE, where(comparison, metric)])
        yield Table(title, columns, tuple(rows), note, label_columns=2)


def _supported(group: Group, name: str) -> str:
    verdicts = group.verdicts.get(name)
    if verdicts is None:
        return NOT_MEASURED
    return f"{verdicts.get('supported', 0)} of {sum(verdicts.values())}"


def _probe_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield one table a probe: a line for each group and kind of rows, a column for each head."""
    probes = dict.fromkeys(name.rsplit(".", 2)[0] for name in comparison.names if name.startswith("probe."))
    for probe in probes:
        names = [name for name in comparison.names if name.startswith(f"{probe}.")]
        kinds = list(dict.fromkeys(name.rsplit(".", 2)[1] for name in names))
        heads = list(dict.fromkeys(name.rsplit(".", 1)[1] for name in names))
        rows = tuple(
            (label, kind.replace("_", " "), *_cells(group, [f"{probe}.{kind}.{head}" for head in heads]))
            for label, group in _labelled(comparison)
            for kind in kinds
        )
        title = f"Probe of {probe.removeprefix('probe.')}, accuracy in %"
        yield Table(title, ("group", "rows", *heads), rows, label_columns=2)


def _zero_shot_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield one table a dataset: a line for each group, top-1 and top-5."""
    names = [name for name in comparison.names if name.startswith("zero_shot.")]
    for dataset in dict.fromkeys(name.rsplit(".", 1)[0] for name in names):
        tops = [name for name in names if name.rsplit(".", 1)[0] == dataset]
        rows = tuple((label, *_cells(group, tops)) for label, group in _labelled(comparison))
        columns = ("group", *(words(name)[1] for name in tops))
        yield Table(f"Zero-shot of {dataset.removeprefix('zero_shot.')}, accuracy in %", columns, rows)


def _paired_table(paired: Mapping[str, Difference]) -> Table:
    rows = tuple(
        (" · ".join(part for part in words(name) if part), *_difference_cells(name, difference))
        for name, difference in paired.items()
    )
    note = "mean difference of runs with the same seed, with its 95% interval by Student's t over seeds"
    return Table("Group 2 less group 1", ("number", "difference", "95% interval", "n"), rows, note)


def _difference_cells(name: str, difference: Difference) -> tuple[str, str, str]:
    bounds = difference.interval or ()
    mean, *ends = (
        share_or_number(name, value, signed=True, decimals=2) for value in (difference.mean, *bounds)
    )
    return mean, " … ".join(ends), str(difference.n)


def difference_words(name: str, difference: Difference) -> str:
    """Return a difference and its interval in one phrase."""
    mean, bounds, _ = _difference_cells(name, difference)
    return f"{mean} [{bounds}]" if bounds else mean


def _left_out_table(comparison: Comparison) -> Table:
    """Name the runs that enter no mean; the command that mends it stands on a line of its own."""
    rows = tuple(
        (run.run, run.reason if run.remedy is None else f"{run.reason}:\n{run.remedy}")
        for run in comparison.left_out
    )
    return Table("Left out", ("run", "why"), rows, label_columns=2)


def _labelled(comparison: Comparison) -> list[tuple[str, Group]]:
    return [(str(index), group) for index, group in enumerate(comparison.groups, start=1)]


def _cells(group: Group, names: Sequence[str]) -> list[str]:
    """Return ``mean ± sd`` of each number, and how many runs have it where that is not all of them."""
    numbers, cells = group.numbers, []
    for name in names:
        cell = spread(name, numbers.get(name))
        partial = name in numbers and numbers[name].n < len(group.runs)
        cells.append(f"{cell} (n = {numbers[name].n})" if partial else cell)
    return cells
