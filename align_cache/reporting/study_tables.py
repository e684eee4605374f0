"""A study as small tables, the same for the terminal and for its page."""

from __future__ import annotations

from align_cache.judging.comparison import Difference
from align_cache.reporting.comparison_words import setting
from align_cache.reporting.study_words import METRICS, bounds, points, spread, where
from align_cache.reporting.tables import Table
from align_cache.reporting.wording import NOT_MEASURED
from align_cache.studies.results import Study


def overall_table(study: Study) -> Table:
    """Return the differences to the baseline over all conditions, a line for each level and metric."""
    rows = []
    for level in study.others:
        for metric in study.metrics:
            found = study.overall(metric, level)
            cells = ("", "", "", NOT_MEASURED)
            if found is not None:
                difference = found.difference
                cells = (
                    *(points(difference.mean), bounds(difference.interval), bounds(found.wide_interval)),
                    found.verdict + _seeds(difference.n, study),
                )
            rows.append((setting(study.levels[level]), _short(metric), *cells))
    columns = ("level", "metric", "points", "95% over seeds", "and images", "verdict")
    meaning = (
        "mean over conditions of runs paired by seed, 95% interval over seeds, and over seeds and images"
    )
    note = f"{meaning}; here: on these images, not shown for others; {where(study)}"
    title = f"{study.factor}: difference to {setting(study.baseline)}, pooled over conditions"
    return Table(title, columns, tuple(rows), note, label_columns=2)


def metric_table(study: Study, metric: str) -> Table:
    """Return one metric under each condition and level: mean ± sd, and the paired difference."""
    rows = []
    for place, condition in enumerate(study.conditions):
        for level, value in enumerate(study.levels):
            found = study.spread(metric, place, level)
            shown = spread(found) + (_seeds(found.n, study) if found is not None else "")
            difference = study.difference(metric, place, level) if level in study.others else None
            labels = (*(setting(each) for each in condition.values()), setting(value))
            rows.append((*labels, shown, *_difference(difference, study)))
    keys = tuple(study.conditions[0])
    columns = (*keys, study.factor, "mean ± sd, %", f"less {setting(study.baseline)}", "95% over seeds")
    note = f"{len(study.seeds)} seeds; differences are of runs with the same seed; {where(study)}"
    title = METRICS[metric][:1].upper() + METRICS[metric][1:]
    return Table(title, columns, tuple(rows), note, label_columns=1 + len(keys))


def failure_table(study: Study) -> Table:
    """Return the runs that failed, and why."""
    rows = tuple(
        (", ".join(f"{key} = {setting(value)}" for key, value in each.values.items()), each.error)
        for each in study.failed
    )
    return Table("Failed", ("run", "why"), rows, label_columns=2)


def _short(metric: str) -> str:
    """Name a metric in few letters: eighty columns have to do."""
    return METRICS[metric].replace("image → text", "i→t").replace("text → image", "t→i")


def _difference(difference: Difference | None, study: Study) -> tuple[str, str]:
    if difference is None:
        return "", ""
    return points(difference.mean), bounds(difference.interval) + _seeds(difference.n, study)


def _seeds(n: int, study: Study) -> str:
    """Say how many seeds a number is of where that is not all of them."""
    return "" if n == len(study.seeds) else f" (n = {n})"
