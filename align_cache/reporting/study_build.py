"""From a study to its files: study.json, study.md and the figures. Never imports torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align_cache.files import publish_text
from align_cache.reporting import style
from align_cache.reporting.comparison_words import setting
from align_cache.reporting.markdown import markdown
from align_cache.reporting.study_figures import differences_figure, levels_figure
from align_cache.reporting.study_tables import failure_table, metric_table, overall_table
from align_cache.reporting.study_words import findings, untrained_key
from align_cache.studies.results import Overall, Study


def report_study(study: Study, folder: Path, *, figures: bool = True) -> Path:
    """Publish what a study found.

    Parameters
    ----------
    study : Study
    folder : Path
        ``studies/<name>`` in a cache.
    figures : bool
        Whether to draw ``figures/levels.png`` and ``figures/differences.png``.

    Returns
    -------
    Path of ``study.md``, the findings and every table; ``study.json`` beside it has the same numbers.
    """
    if figures:
        style.save(levels_figure(study), folder / "figures" / "levels.png")
        style.save(differences_figure(study), folder / "figures" / "differences.png")
    publish_text(folder / "study.json", json.dumps(study_record(study), indent=2, ensure_ascii=False) + "\n")
    path = folder / "study.md"
    publish_text(path, study_page(study, figures=figures))
    return path


def study_record(study: Study) -> dict[str, Any]:
    """Return everything as JSON can hold it; shares are in 0..1."""
    overall = [
        {"level": study.levels[level], "metric": metric, **_overall(study.overall(metric, level))}
        for level in study.others
        for metric in study.metrics
    ]
    told = (
        "name",
        "factor",
        "baseline",
        "levels",
        "conditions",
        "seeds",
        "metrics",
        "split",
        "sizes",
        "untrained",
    )
    return {
        **{key: getattr(study, key) for key in told},
        "findings": findings(study),
        "overall": overall,
        "cells": [
            _cell(study, metric, place, level)
            for metric in study.metrics
            for place in range(len(study.conditions))
            for level in range(len(study.levels))
        ],
        "tally": {"single_conditions": asdict(study.tally()), "pooled": asdict(study.overall_tally())},
        "error_of_one_run": {metric: study.error_of_one_run(metric) for metric in study.metrics},
        "failed": [asdict(failure) for failure in study.failed],
        "runs": [
            {
                "condition": study.conditions[c],
                "level": study.levels[lev],
                "seed": study.seeds[s],
                "run": trial.run,
            }
            for (c, lev, s), trial in sorted(study.trials.items())
        ],
    }


def study_page(study: Study, *, figures: bool) -> str:
    """Write the page: what was found, then every table."""
    lines = [f"# {study.name}: {study.factor} against {setting(study.baseline)}", ""]
    lines += [f"**{line}**\n" for line in untrained_key(study)]
    lines += [*(f"- {finding}" for finding in findings(study)), ""]
    if figures:
        lines += ["![Differences](figures/differences.png)", "", "![Levels](figures/levels.png)", ""]
    tables = [overall_table(study), *(metric_table(study, metric) for metric in study.metrics)]
    tables += [failure_table(study)] if study.failed else []
    for table in tables:
        lines += [f"## {table.title}", "", *markdown(table)]
    return "\n".join(lines).rstrip() + "\n"


def _overall(found: Overall | None) -> dict[str, Any]:
    if found is None:
        return {"difference": None, "wide_interval": None, "image_error": None, "verdict": None}
    return {**asdict(found), "wide_interval": found.wide_interval, "verdict": found.verdict}


def _cell(study: Study, metric: str, place: int, level: int) -> dict[str, Any]:
    found = study.spread(metric, place, level)
    difference = study.difference(metric, place, level) if level in study.others else None
    return {
        "metric": metric,
        "condition": study.conditions[place],
        "level": study.levels[level],
        "spread": found and asdict(found),
        "difference": difference and asdict(difference),
    }
