"""Records as plain tables of strings, the same for the terminal and for the page.

Whatever a record does not hold is written ``not measured``: a reader has to see that it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align_cache.reporting.wording import (
    NOT_MEASURED,
    count,
    number,
    percent,
    percents,
    plus_minus,
    text,
)
from align_cache.run_records import DIRECTIONS, RECALLS, SIMILARITY, dig
from align_cache.run_records import Record as Record

SPACES = ("features", "embeddings")
PAIRS = {
    "image_text": "image – text",
    "image_reference": "image – reference",
    "text_reference": "text – reference",
    "aligned_reference": "aligned – reference",
}
SHORT_PAIRS = {
    "image_text": "image–text",
    "image_reference": "image–ref",
    "text_reference": "text–ref",
    "aligned_reference": "aligned–ref",
}
"""For tables that would not fit eighty columns with the words written out."""
METRICS = {
    "mutual_knn": "mutual k-NN",
    "cka": "CKA",
    "cka_rbf": "RBF CKA",
    "cknna": "CKNNA",
    "cycle_knn": "cycle k-NN",
    "lcs_knn": "LCS k-NN",
    "edit_distance_knn": "edit k-NN",
    "svcca": "SVCCA",
}
PARAMETERS = {"cka": "CKA unbiased", "cka_rbf": "RBF CKA biased, σ = 1", "svcca": "SVCCA of 10 directions"}
"""What a metric's value depends on beside N and k."""
HYPOTHESES = {"h1": "aligned > mean of image and text", "h2": "aligned > best of image and text"}
DISTRIBUTION = {
    "variance_difference": "variance difference to the reference",
    "effective_rank": "effective rank",
    "uniformity": "uniformity",
    "modality_gap": "modality gap",
    "mean_norm": "mean norm before normalising",
}
PROBE_HEADS = {"linear": "Linear", "mlp": "Hidden-layer", "ridge": "Ridge", "knn": "k-NN"}


@dataclass(frozen=True)
class Table:
    """A table ready to be shown; every cell is a string, shown as it is."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    label_columns: int = 1
    """How many leading columns are labels; the others are numbers."""

    def shown(self) -> tuple[tuple[str, ...], ...]:
        """Return the rows as they are shown: a label that only repeats the row above is left empty."""
        rows = []
        for above, row in zip(((), *self.rows), self.rows, strict=False):
            same = 0
            while same < self.label_columns - 1 and row[: same + 1] == above[: same + 1]:
                same += 1
            rows.append(("",) * same + row[same:])
        return tuple(rows)


def retrieval_table(record: Record) -> Table:
    """Return recalls with intervals, ranks and chance both ways; features too where they share a space."""
    embeddings, features = (part_of(record, space).get("retrieval") for space in reversed(SPACES))
    rows = []
    for key, label in DIRECTIONS.items():
        direction = (embeddings or {}).get(key)
        rows += [(label, *_retrieval_cells(direction)), ("· 95%", *_bounds_cells(direction))]
        if features is not None:  # None: two encoders' features have no common space, nothing is missing
            rows.append(("· features", *_retrieval_cells(features.get(key))))
            rows.append(("· 95%", *_bounds_cells(features.get(key))))
        if direction is not None:
            rows.append(("· chance", *_chance_cells(direction)))
    columns = ("", *(f"R@{k}" for k in RECALLS), "median", "MRR", "queries", "among")
    note = f"median: median rank; 95%: intervals over images; {where(record)}"
    return Table("Retrieval", columns, tuple(rows), note)


def _retrieval_cells(direction: Record | None) -> tuple[str, ...]:
    if direction is None:
        return (NOT_MEASURED, *("",) * (len(RECALLS) + 3))
    recalls = (percent(direction.get(f"r{k}")) for k in RECALLS)
    counts = (count(direction.get("n_queries")), count(direction.get("n_candidates")))
    return (*recalls, _rank(direction.get("median_rank")), number(direction.get("mrr")), *counts)


def _bounds_cells(direction: Record | None) -> tuple[str, ...]:
    bounds = dig(direction, "intervals")
    if bounds is None:
        return (NOT_MEASURED, *("",) * (len(RECALLS) + 3))
    return (*(percents(bounds.get(f"r{k}")) for k in RECALLS), *("",) * 4)


def _rank(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:,.1f}"


def _chance_cells(direction: Record) -> tuple[str, ...]:
    recalls = tuple(percent(chance_recall(direction, k)) for k in RECALLS)
    return (*recalls, "", "", count(direction.get("n_queries")), count(direction.get("n_candidates")))


def chance_recall(direction: Record, k: int) -> float:
    """Return the recall of a random ranking.

    With c candidates of which m answer the query (several captions of one image: m is their mean number),
    k random draws miss with probability prod_{j<k} (1 − m / (c − j)).
    """
    candidates, queries = direction["n_candidates"], direction["n_queries"]
    answers = max(1.0, candidates / queries)
    miss = 1.0
    for drawn in range(min(k, candidates)):
        miss *= max(0.0, 1.0 - answers / (candidates - drawn))
    return 1.0 - miss


def alignment_table(record: Record) -> Table:
    """Return one row per metric and pair: features and embeddings with intervals, the change, chance."""
    parts = [part_of(record, space) for space in SPACES]
    rows = []
    for metric in _metrics(record):
        chance = (record.get("chance") or {}).get(metric)
        for pair, label in SHORT_PAIRS.items():
            before, after = (dig(part, "alignment", metric, pair) for part in parts)
            change = "" if before is None or after is None else number(after - before, signed=True)
            shown = (plus_minus(value, dig(part, "intervals", metric, pair))
                     for value, part in zip((before, after), parts, strict=True))  # fmt: skip
            cells = (*shown, change, "" if chance is None else number(chance))
            rows.append((METRICS.get(metric, metric), label, *cells))
    columns = ("metric", "pair", *SPACES, "change", "chance")
    known = any(part.get("intervals") for part in parts)
    meaning = "±: 95% interval over items" if known else f"95% intervals {NOT_MEASURED}"
    note = f"{meaning}; ref: reference; {where(record, k=True)}"
    return Table("Kernel alignment", columns, tuple(rows), note, label_columns=2)


def distribution_table(record: Record) -> Table:
    """Return cosine similarities and distribution metrics of features and embeddings."""
    parts = [part_of(record, space).get("distribution") or {} for space in SPACES]
    rows = _similarity_rows(record)
    for key, label in DISTRIBUTION.items():
        values = [part.get(key) for part in parts]
        names = [name for value in values if isinstance(value, Mapping) for name in value]
        for name in dict.fromkeys(names) or (None,):
            cells = (value.get(name) if isinstance(value, Mapping) else value for value in values)
            rows.append((label if name is None else f"{label}, {name}", *(number(cell) for cell in cells)))
    return Table("Distribution", ("quantity", *SPACES), tuple(rows), where(record))


def _similarity_rows(record: Record) -> list[tuple[str, ...]]:
    found = [part_of(record, space).get("similarity") for space in SPACES]
    return [(label, *(number(dig(part, key)) for part in found)) for key, label in SIMILARITY.items()]


def probe_table(record: Record) -> Table | None:
    """Return probe accuracies with their intervals, or None where no probe was asked for."""
    probe = record.get("probe")
    if probe is None:
        return None
    rows = tuple(
        (
            *(name.replace("_", " "), head_label(head, result)),
            *(*_probe_cells(result), number(_relative(probe, name, head), 3)),
        )
        for name, heads in (probe.get("rows") or {}).items()
        for head, result in heads.items()
    )
    columns = ("rows", "head", "accuracy", "95% interval", "train", "test", "relative")
    title = f"Probe: {probe.get('name') or probe.get('probe') or NOT_MEASURED}"
    meaning = ["relative: accuracy over the reference features'"] if probe.get("relative") else []
    return Table(title, columns, rows, "; ".join([*meaning, *(probe.get("notes") or ())]), label_columns=2)


def head_label(head: str, result: Record | None) -> str:
    """Return a probe head's name with the setting that its accuracy depends on."""
    k = dig(result, "k")
    return head if k is None else f"k-NN, k = {k}"


def probe_title(head: str, result: Record | None) -> str:
    """Return the same for the title of a panel or a tile."""
    k = dig(result, "k")
    return f"{PROBE_HEADS.get(head, head)} probe" + ("" if k is None else f", k = {k}")


def _probe_cells(result: Record | None) -> tuple[str, ...]:
    result = result or {}
    bounds = result.get("interval")
    shown = NOT_MEASURED if bounds is None else f"{percent(bounds[0])} – {percent(bounds[1])}"
    return (percent(result.get("accuracy")), shown, count(result.get("n_train")), count(result.get("n_test")))


def _relative(probe: Record, row: str, head: str) -> float | None:
    value: float | None = ((probe.get("relative") or {}).get(row) or {}).get(head)
    return value


def part_of(record: Record, space: str) -> Record:
    """Return the measurements of features or of embeddings, empty where there are none."""
    part: Record = record.get(space) or {}
    return part


def metric_title(metric: str) -> str:
    """Return a metric's name with a capital, for the head of a panel."""
    label = METRICS.get(metric, metric)
    return label[:1].upper() + label[1:]


def _metrics(record: Record) -> Sequence[str]:
    """Return the metrics that were measured; those of every training run where none was."""
    parts = (part_of(record, space).get("alignment") or {} for space in SPACES)
    return list(dict.fromkeys(metric for part in parts for metric in part)) or ["mutual_knn", "cka"]


def where(record: Record, *, k: bool = False) -> str:
    """Return what a table was measured on: split, N, and with ``k`` what alignment metrics depend on."""
    neighbours = ""
    if k:
        used = [PARAMETERS[metric] for metric in _metrics(record) if metric in PARAMETERS]
        neighbours = ", ".join([f", k = {count(record.get('k'))}", *used])
    images, captions = count(record.get("n_images")), count(record.get("n_captions"))
    return f"{text(record.get('split'))} split, N = {images} images, {captions} captions{neighbours}"
