"""The page of results.py: every number and every finding on it is made from the runs."""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from statistics import fmean

import torch

from align_cache import Run, __version__
from align_cache.judging.comparison import Comparison, Difference, Group
from align_cache.reporting.comparison import comparison_tables, difference_words
from align_cache.reporting.comparison_words import spread, words
from align_cache.reporting.markdown import markdown
from align_cache.reporting.tables import METRICS, PAIRS, Table
from align_cache.reporting.wording import interval, number
from align_cache.results import Record
from tests.benchmarks import results_text as texts
from tests.benchmarks.results_margins import BASELINES, HYPOTHESES, pooled

ROLES = ("image", "text", "reference")
OUTCOMES = {
    (1, 0): "every run supports it",
    (0, 1): "every run contradicts it",
    (0, 0): "every run leaves it undecided",
}
"""By the shares of runs that support and that contradict."""
NAMES = {"linear": "Linear", "mlp": "MLP"}
TOLD = ("retrieval.", "distribution.")
"""What is said in words of the variance term, beside the alignment of aligned – reference."""
KEPT = ("Groups", "Retrieval, %", "Loss and spread")
"""Tables of the comparison that stand on the page as they are; those of metrics are put together here."""


def page(comparisons: dict[str, Comparison], command: str) -> str:
    run = next(iter(comparisons.values())).groups[0].runs[0].run
    parts = [
        introduction(run, len(comparisons["linear"].groups[0].runs), command),
        raw_features(run.results()[-1]),
        verdicts(comparisons, run.results()[-1]),
        *(section(adapter, comparison) for adapter, comparison in comparisons.items()),
    ]
    return "\n".join(line for part in parts for line in part)


def introduction(run: Run, seeds: int, command: str) -> Iterator[str]:
    info, record = run.info(), run.results()[-1]
    encoders = {role: f"`{info[role]['encoder']}` ({info[role]['dim']}-d)" for role in ROLES}
    yield texts.INTRODUCTION.format(
        command=command,
        train=f"{info['n_train_images']:,} images with {info['n_train_captions']:,} captions",
        judged=f"{record['n_images']:,} images with {record['n_captions']:,} captions",
        split=record["split"],
        chose=texts.CHOSE if record["split"] == "val" else "",
        **encoders,
        n=f"{record['n_images']:,}",
        k=record["k"],
        seeds=seeds,
        last=seeds - 1,
        epochs=run.config()["optim"]["epochs"],
        versions=f"align-cache {__version__}, torch {torch.__version__}, {platform.machine()}",
        device=info["device"],
    )


def raw_features(record: Record) -> Iterator[str]:
    """The features and their null, which no adapter and no seed changes."""
    features = record["features"]
    yield texts.RAW.format(shuffles=record["permutations"])
    rows = []
    for metric, pairs in features["alignment"].items():
        null = features["null"][metric]["aligned_reference"]
        parts = pairs["image_reference"], pairs["text_reference"]
        rows.append(
            (
                METRICS[metric],
                *(with_half(pairs[pair], features["intervals"][metric][pair]) for pair in PAIRS),
                number(null["chance"]),
                number(null["calibrated"]),
                number(pairs["aligned_reference"] - fmean(parts), signed=True),
            )
        )
    columns = ("metric", *PAIRS.values(), "chance", "calibrated", "H1 margin of aligned")
    yield from markdown(Table("", columns, tuple(rows), f"the p of each pair is {smallest_p(record)}"))


def smallest_p(record: Record) -> str:
    """What the shuffles say of features and embeddings, in one phrase."""
    found = [pair["p"] for space in ("features", "embeddings")
             for pairs in record[space]["null"].values() for pair in pairs.values()]  # fmt: skip
    least = 1 / (record["permutations"] + 1)
    if max(found) <= least * 1.0001:
        return f"{least:.3f}, the least that {record['permutations']} shuffles can give"
    return f"at most {max(found):.3f}"


def verdicts(comparisons: dict[str, Comparison], record: Record) -> Iterator[str]:
    """One line a metric: how many runs support and contradict each hypothesis against each baseline."""
    runs = sum(len(group.runs) for group in comparisons["linear"].groups)
    yield texts.VERDICTS.format(runs=runs)
    cases = list(product(comparisons, HYPOTHESES, BASELINES))
    counts = {
        metric: [counted(comparisons[adapter], metric, baseline, key) for adapter, key, baseline in cases]
        for metric in record["features"]["alignment"]
    }
    columns = (f"{NAMES[adapter]} {key.upper()}, {baseline}" for adapter, key, baseline in cases)
    rows = ((METRICS[metric], *(f"{up} : {down}" for up, down in found)) for metric, found in counts.items())
    note = f"supported : contradicted, of {runs} runs; against the embeddings, and against the raw features"
    yield from markdown(Table("", ("metric", *columns), tuple(rows), note))
    yield reading(comparisons, record, cases, counts, runs)


def counted(comparison: Comparison, metric: str, baseline: str, key: str) -> tuple[int, int]:
    """Count the runs that support and that contradict."""
    found = [run.verdicts.get(f"hypotheses.{baseline}.{metric}.{key}")
             for group in comparison.groups for run in group.runs]  # fmt: skip
    return found.count("supported"), found.count("not supported")


def reading(
    comparisons: dict[str, Comparison],
    record: Record,
    cases: list[tuple[str, str, str]],
    counts: dict[str, list[tuple[int, int]]],
    runs: int,
) -> str:
    """What the counts say, case by case, and what stands behind disagreements."""
    findings = []
    for index, (adapter, key, baseline) in enumerate(cases):
        told: dict[str, list[str]] = {said: [] for said in OUTCOMES.values()} | {"runs differ": []}
        for metric, found in counts.items():
            shares = tuple(count / runs for count in found[index])
            told[OUTCOMES.get(shares, "runs differ")].append(metric)
        phrases = (f"{said} under {listed(which, len(counts))}" for said, which in told.items() if which)
        findings.append(f"- {NAMES[adapter]}, {key.upper()} against the {baseline}: {'; '.join(phrases)}.")

    def chance(metric: str) -> str:
        return number(record["features"]["null"][metric]["aligned_reference"]["chance"], 3)

    return texts.READING.format(
        findings="\n".join(findings),
        k=record["k"],
        n=f"{record['n_images']:,}",
        metrics=len(counts),
        nearer="; ".join(nearer(adapter, found, record) for adapter, found in comparisons.items()),
        rbf_chance=chance("cka_rbf"),
        cka_chance=chance("cka"),
        cycle_chance=chance("cycle_knn"),
        svcca_chance=chance("svcca"),
    )


def nearer(adapter: str, comparison: Comparison, record: Record) -> str:
    """Name the metrics under which the trained aligned embedding beats the raw features side by side."""
    trained = comparison.groups[0].numbers
    raw = {metric: pairs["aligned_reference"] for metric, pairs in record["features"]["alignment"].items()}
    above = [metric for metric in raw if trained[f"alignment.{metric}.aligned_reference"].mean > raw[metric]]
    below = [METRICS[metric] for metric in raw if metric not in above]
    but = f", not under {', '.join(below)}" if below and above else ""
    return f"({NAMES[adapter]} adapter) under {listed(above, len(raw)) or 'no metric'}{but}"


def listed(metrics: list[str], known: int) -> str:
    names = [METRICS[metric] for metric in metrics]
    return f"all {known} metrics" if len(names) == known else ", ".join(names)


def section(adapter: str, comparison: Comparison) -> Iterator[str]:
    name = NAMES[adapter]
    yield f"## {name} adapter\n"
    tables = {table.title: table for table in comparison_tables(comparison)}
    for kept in KEPT:
        yield f"### {name}: {kept}\n"
        yield from markdown(tables[kept])
    for group in comparison.groups:
        record = group.runs[0].run.results()[-1]
        setting = "with" if group.settings["loss.distribution_matching"] else "without"
        yield f"### {name} {setting} the variance term: alignment of the embeddings\n"
        yield from markdown(alignment(group, record))
        yield f"### {name} {setting} the variance term: margins\n"
        yield from markdown(margins(group, record))
    yield texts.POOLED
    yield f"### {name}: what the variance term moved\n"
    yield from (f"{sentence}\n" for sentence in effects(comparison))
    differences = tables["Group 2 less group 1"]
    of_seeds = tuple(row for row in differences.rows if row[2])  # the null, of one seed, has no interval
    yield from folded("Every paired difference, group 2 less group 1", replace(differences, rows=of_seeds))


def alignment(group: Group, record: Record) -> Table:
    """One line a metric: over seeds, in brackets over items, and the null of one seed."""
    rows = []
    for metric in record["embeddings"]["alignment"]:
        cells = []
        for pair in PAIRS:
            name = f"alignment.{metric}.{pair}"
            bounds = [run.run.results()[-1]["embeddings"]["intervals"][metric][pair] for run in group.runs]
            half = fmean((high - low) / 2 for low, high in bounds)
            cells.append(f"{spread(name, group.numbers[name])} ({number(half)})")
        null = record["embeddings"]["null"][metric]["aligned_reference"]
        rows.append((METRICS[metric], *cells, number(null["chance"]), number(null["calibrated"])))
    columns = ("metric", *PAIRS.values(), "chance", "calibrated")
    note = texts.ALIGNMENT_NOTE.format(
        seeds=len(group.runs), seed=group.runs[0].seed, shuffles=record["permutations"], p=smallest_p(record)
    )
    return Table("", columns, tuple(rows), note)


def margins(group: Group, record: Record) -> Table:
    """One line a margin: over seeds, pooled with the items, and how many seeds support it."""
    rows = []
    for metric in record["features"]["alignment"]:
        for key in HYPOTHESES:
            for baseline in BASELINES:
                name = f"hypotheses.{baseline}.{metric}.{key}"
                found = pooled(group, baseline, metric, key)
                seeds, items = spread(name, group.numbers[name]), interval(found.interval, signed=True)
                case = METRICS[metric], key.upper(), baseline
                rows.append((*case, seeds, tally(group, name), items, found.verdict))
    columns = ("metric", "", "against", "margin", "supported", "pooled 95% interval", "pooled verdict")
    return Table("", columns, tuple(rows), label_columns=3)


def tally(group: Group, name: str) -> str:
    return f"{group.verdicts.get(name, {}).get('supported', 0)} of {len(group.runs)}"


def effects(comparison: Comparison) -> Iterator[str]:
    """What the variance term moved, as far as the seeds tell."""
    paired = {name: found for name, found in (comparison.paired or {}).items() if found.interval}
    moved = {name: found for name, found in paired.items() if excludes_zero(found) and name != "val_loss"}
    told = [name for name in moved if name.startswith(TOLD) or name.endswith(".aligned_reference")]
    phrases = [f"{' '.join(words(name))} by {difference_words(name, moved[name])}" for name in told]
    if len(told) < len(moved):
        phrases.append(f"and {len(moved) - len(told)} other numbers of the table below")
    measured = len(paired) - ("val_loss" in paired)
    yield texts.EFFECTS.format(
        moved="; ".join(phrases) or "nothing that the seeds can tell",
        measured=measured,
        clear=len(moved),
        chance=0.05 * measured,
    )


def excludes_zero(difference: Difference) -> bool:
    low, high = difference.interval or (0.0, 0.0)
    return low > 0 or high < 0


def with_half(value: float, bounds: Iterable[float]) -> str:
    low, high = bounds
    return f"{number(value)} ± {number((high - low) / 2)}"


def folded(summary: str, table: Table) -> Iterator[str]:
    """A long table that opens on a click."""
    yield f"<details><summary>{summary}</summary>\n"
    yield from markdown(table)
    yield "</details>\n"
