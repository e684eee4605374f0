"""A comparison of runs as small tables, the same for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from align_cache.comparison import Comparison, Difference, Group, Spread
from align_cache.reporting.tables import (
    DIRECTIONS,
    HYPOTHESES,
    METRICS,
    PAIRS,
    PARAMETERS,
    RECALLS,
    SHORT_PAIRS,
    SPACES,
    Table,
)
from align_cache.reporting.wording import NOT_MEASURED, count, number

_SPREAD_NOTE = "everywhere: mean ± standard deviation over seeds"
_MARGIN_NOTE = "supported: runs whose own 95% interval over items lies above zero"
_TRAINING = {
    "val_loss": "val loss",
    "distribution.variance_difference": "variance difference",
    "distribution.modality_gap": "modality gap",
}
_SETTINGS_WIDTH = 56
"""Columns of the terminal that settings may take; wider ones share one cell."""
_SHORT_WAYS = {"image_to_text": "i→t", "text_to_image": "t→i"}


def words(name: str) -> tuple[str, str]:
    """Return what a number of a comparison is called, in two parts: the quantity, and of what."""
    match name.split("."):
        case ["retrieval", way, recall]:
            return f"R@{recall.removeprefix('r')}, %", DIRECTIONS[way]
        case ["alignment", metric, pair]:
            return METRICS.get(metric, metric), PAIRS[pair]
        case ["hypotheses", baseline, metric, key]:
            return f"{key.upper()} margin, {METRICS.get(metric, metric)}", f"against {baseline}"
        case ["probe", *dataset, row, head]:
            return f"{'.'.join(dataset)} probe, %", f"{row.replace('_', ' ')}, {head}"
        case _:
            return _TRAINING[name], "validation" if name == "val_loss" else "embeddings"


def in_percent(name: str) -> bool:
    """Say whether a number is a share, and shown in percent."""
    return name.startswith(("retrieval.", "probe."))


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of a comparison, in reading order; each fits eighty columns."""
    tables = [_settings_table(comparison), _retrieval_table(comparison), *_alignment_tables(comparison)]
    tables += [*_margin_tables(comparison), _spread_table(comparison), *_probe_tables(comparison)]
    if comparison.paired is not None:
        tables.append(_paired_table(comparison.paired))
    if comparison.left_out:
        tables.append(_left_out_table(comparison))
    return tables


def setting(value: object) -> str:
    """Return the value of a setting as it would be typed."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return "[" + ", ".join(setting(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


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
        _SPREAD_NOTE,
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
        names = [f"alignment.{metric}.{pair}" for pair in PAIRS]
        rows = tuple((label, *_cells(group, names)) for label, group in _labelled(comparison))
        title = f"{METRICS.get(metric, metric)} of the embeddings"
        yield Table(title, ("group", *SHORT_PAIRS.values()), rows, where(comparison, metric))


def _spread_table(comparison: Comparison) -> Table:
    rows = tuple((label, *_cells(group, list(_TRAINING))) for label, group in _labelled(comparison))
    return Table("Loss and spread", ("group", *_TRAINING.values()), rows, where(comparison))


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


def _paired_table(paired: Mapping[str, Difference]) -> Table:
    rows = tuple(
        (" · ".join(part for part in words(name) if part), *_difference_cells(name, difference))
        for name, difference in paired.items()
    )
    note = "mean difference of runs with the same seed, with its 95% interval by Student's t over seeds"
    return Table("Group 2 less group 1", ("number", "difference", "95% interval", "n"), rows, note)


def _difference_cells(name: str, difference: Difference) -> tuple[str, str, str]:
    bounds = difference.interval or ()
    mean, *ends = (_number(name, value, signed=True, decimals=2) for value in (difference.mean, *bounds))
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


def parts(comparison: Comparison, family: str, place: int) -> list[str]:
    """Return what stands at one place of the dotted names of a family, each once."""
    names = (name for name in comparison.names if name.startswith(f"{family}."))
    return list(dict.fromkeys(name.split(".")[place] for name in names))


def _cells(group: Group, names: Sequence[str]) -> list[str]:
    """Return ``mean ± sd`` of each number, and how many runs have it where that is not all of them."""
    numbers, cells = group.numbers, []
    for name in names:
        cell = spread(name, numbers.get(name))
        partial = name in numbers and numbers[name].n < len(group.runs)
        cells.append(f"{cell} (n = {numbers[name].n})" if partial else cell)
    return cells


def spread(name: str, value: Spread | None) -> str:
    """Return ``mean ± sd``, the mean alone where there is one run, ``not measured`` for None."""
    if value is None:
        return NOT_MEASURED
    mean = _number(name, value.mean, signed=name.startswith("hypotheses."))
    return mean if value.sd is None else f"{mean} ± {_number(name, value.sd)}"


def _number(name: str, value: float, *, signed: bool = False, decimals: int = 1) -> str:
    """Return a number as its kind is shown; ``decimals`` are those of a share in percent."""
    if not in_percent(name):
        return number(value, signed=signed)
    return f"{100 * value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def where(comparison: Comparison, *metrics: str) -> str:
    """Say what the numbers were measured on, as far as it is the same for all groups."""
    shared = comparison.shared
    known = [f"{shared['eval.split']} split"] if "eval.split" in shared else []
    if {"eval.n_images", "eval.n_captions"} <= shared.keys():
        images, captions = count(shared["eval.n_images"]), count(shared["eval.n_captions"])
        known.append(f"N = {images} images, {captions} captions")
    if "eval.k" in shared and any(metric not in PARAMETERS for metric in metrics):
        known.append(f"k = {count(shared['eval.k'])}")
    return ", ".join([*known, *(PARAMETERS[metric] for metric in metrics if metric in PARAMETERS)])
