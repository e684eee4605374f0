"""Records as plain tables of strings, the same for the terminal and for the page.

Whatever a record does not hold is written ``not measured``: a reader has to see that it is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from align_cache.reporting.wording import (
    NOT_MEASURED,
    byte_size,
    count,
    duration,
    interval,
    number,
    p_value,
    percent,
    text,
)

Record: TypeAlias = Mapping[str, Any]
"""One JSON object of a run folder."""

SPACES = ("features", "embeddings")
PAIRS = {
    "image_text": "image – text",
    "image_reference": "image – reference",
    "text_reference": "text – reference",
    "aligned_reference": "aligned – reference",
}
METRICS = {"mutual_knn": "mutual k-NN", "cka": "CKA"}
DIRECTIONS = {"image_to_text": "image → text", "text_to_image": "text → image"}
HYPOTHESES = {"h1": "aligned > mean of image and text", "h2": "aligned > best of image and text"}
DISTRIBUTION = {
    "variance_difference": "variance difference to the reference",
    "effective_rank": "effective rank",
    "uniformity": "uniformity",
    "modality_gap": "modality gap",
    "mean_norm": "mean norm before normalising",
}
RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class Table:
    """A table ready to be shown; every cell is a string, shown as it is."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    label_columns: int = 1
    """How many leading columns are labels; the others are numbers."""


def evaluation_tables(record: Record) -> list[Table]:
    """Return the tables of an evaluation record, in reading order."""
    tables = [retrieval_table(record), alignment_table(record), hypothesis_table(record)]
    tables.append(distribution_table(record))
    probe = probe_table(record)
    return tables if probe is None else [*tables, probe]


def retrieval_table(record: Record) -> Table:
    """Return recall, ranks and chance in both directions; features too where they share a space."""
    embeddings, features = (_part(record, space).get("retrieval") for space in reversed(SPACES))
    rows = []
    for key, label in DIRECTIONS.items():
        direction = (embeddings or {}).get(key)
        rows.append((label, *_retrieval_cells(direction)))
        if features is not None:  # None: two encoders' features have no common space, nothing is missing
            rows.append(("· features", *_retrieval_cells(features.get(key))))
        if direction is not None:
            rows.append(("· chance", *_chance_cells(direction)))
    columns = ("", *(f"R@{k}" for k in RECALLS), "median", "MRR", "queries", "candidates")
    return Table("Retrieval", columns, tuple(rows), f"median: median rank; {_where(record)}")


def _retrieval_cells(direction: Record | None) -> tuple[str, ...]:
    if direction is None:
        return (*("",) * (len(RECALLS) + 3), NOT_MEASURED)
    recalls = (percent(direction.get(f"r{k}")) for k in RECALLS)
    counts = (count(direction.get("n_queries")), count(direction.get("n_candidates")))
    return (*recalls, _rank(direction.get("median_rank")), number(direction.get("mrr")), *counts)


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
    """Return one row per metric and pair: features, embeddings, the change, chance."""
    features, embeddings = (_part(record, space).get("alignment") or {} for space in SPACES)
    rows = []
    for metric in _metrics(features, embeddings):
        chance = (record.get("chance") or {}).get(metric)
        for pair, label in PAIRS.items():
            before, after = (part.get(metric, {}).get(pair) for part in (features, embeddings))
            change = None if before is None or after is None else after - before
            shown = "" if change is None else number(change, signed=True)
            cells = (number(before), number(after), shown, "" if chance is None else number(chance))
            rows.append((METRICS.get(metric, metric), label, *cells))
    columns = ("metric", "pair", *SPACES, "change", "chance")
    note = _where(record, k=True)
    return Table("Kernel alignment", columns, tuple(rows), note, label_columns=2)


def hypothesis_table(record: Record) -> Table:
    """Return the margins of H1 and H2 against both baselines, with interval, p-value and verdict."""
    rows = []
    for space in reversed(SPACES):
        metrics = (record.get("hypotheses") or {}).get(space) or {}
        for metric, tests in metrics.items():
            rows += [
                (key.upper(), METRICS.get(metric, metric), space, *_margin_cells(tests.get(key)))
                for key in HYPOTHESES
            ]
    columns = ("", "metric", "against", "margin", "95% interval", "p", "verdict")
    rows = rows or [("H1, H2", NOT_MEASURED, *("",) * 5)]
    note = "; ".join(
        [*(f"{key.upper()}: {claim}" for key, claim in HYPOTHESES.items()), _where(record, k=True)]
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


def distribution_table(record: Record) -> Table:
    """Return the distribution metrics of features and embeddings."""
    parts = [_part(record, space).get("distribution") or {} for space in SPACES]
    rows = []
    for key, label in DISTRIBUTION.items():
        values = [part.get(key) for part in parts]
        names = [name for value in values if isinstance(value, Mapping) for name in value]
        for name in dict.fromkeys(names) or (None,):
            cells = (value.get(name) if isinstance(value, Mapping) else value for value in values)
            rows.append((label if name is None else f"{label}, {name}", *(number(cell) for cell in cells)))
    return Table("Distribution", ("quantity", *SPACES), tuple(rows), _where(record))


def probe_table(record: Record) -> Table | None:
    """Return probe accuracies with their intervals, or None where no probe was asked for."""
    probe = record.get("probe")
    if probe is None:
        return None
    rows = tuple(
        (name.replace("_", " "), head, *_probe_cells(result), number(_relative(probe, name, head), 3))
        for name, heads in (probe.get("rows") or {}).items()
        for head, result in heads.items()
    )
    columns = ("rows", "head", "accuracy", "95% interval", "train", "test", "relative to the reference")
    title = f"Probe: {probe.get('name') or probe.get('probe') or NOT_MEASURED}"
    return Table(title, columns, rows, "; ".join(probe.get("notes") or ()), label_columns=2)


def _probe_cells(result: Record | None) -> tuple[str, ...]:
    result = result or {}
    bounds = result.get("interval")
    shown = NOT_MEASURED if bounds is None else f"{percent(bounds[0])} – {percent(bounds[1])}"
    return (percent(result.get("accuracy")), shown, count(result.get("n_train")), count(result.get("n_test")))


def _relative(probe: Record, row: str, head: str) -> float | None:
    value: float | None = ((probe.get("relative") or {}).get(row) or {}).get(head)
    return value


def run_table(run: Record) -> Table:
    """Return what was trained on what, as name and value."""
    return Table("Run", ("", ""), tuple(_run_rows(run)), label_columns=2)


def _run_rows(run: Record) -> Iterator[tuple[str, str]]:
    yield "run", text(run.get("id"))
    yield "status", text(run.get("status"))
    yield "dataset", text(run.get("dataset"))
    yield "train", _pairs_of(run.get("n_train_images"), run.get("n_train_captions"))
    yield "validation", _pairs_of(run.get("n_val_images"), run.get("n_val_captions"))
    for role in ("image", "text", "reference"):
        yield f"{role} encoder", encoder_label(run.get(role))
    yield "adapter", f"{text(run.get('adapter'))}, {count(run.get('n_parameters'))} parameters"
    yield "embedding", f"{count(run.get('embed_dim'))} dimensions"
    yield "best epoch", text(run.get("best_epoch"))
    yield "seed", text(run.get("seed"))
    yield "time", NOT_MEASURED if run.get("duration_s") is None else duration(run["duration_s"])
    yield "peak memory", byte_size(run.get("peak_memory_bytes"))


def _pairs_of(images: int | None, captions: int | None) -> str:
    return f"{count(images)} images, {count(captions)} captions"


def encoder_label(encoder: Record | None) -> str:
    """Return an encoder's name, dimension and key, and whether it is untrained."""
    if encoder is None:
        return "none"
    untrained = ", UNTRAINED" if encoder.get("untrained") else ""
    dim = f"{count(encoder.get('dim'))}-d{untrained}"
    return f"{text(encoder.get('encoder'))} ({dim}), {text(encoder.get('key8'))}"


def _part(record: Record, space: str) -> Record:
    part: Record = record.get(space) or {}
    return part


def metric_title(metric: str) -> str:
    """Return a metric's name with a capital, for the head of a panel."""
    label = METRICS.get(metric, metric)
    return label[:1].upper() + label[1:]


def _metrics(*parts: Record) -> Sequence[str]:
    return list(dict.fromkeys(metric for part in parts for metric in part)) or list(METRICS)


def _where(record: Record, *, k: bool = False) -> str:
    neighbours = f", k = {count(record.get('k'))}, CKA unbiased" if k else ""
    images, captions = count(record.get("n_images")), count(record.get("n_captions"))
    return f"{text(record.get('split'))} split, N = {images} images, {captions} captions{neighbours}"
