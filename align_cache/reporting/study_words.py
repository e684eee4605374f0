"""A study in words: what its metrics are called, and what it found, in sentences that its numbers carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align_cache.judging.comparison import Spread
from align_cache.reporting.comparison_words import setting
from align_cache.reporting.wording import NOT_MEASURED, count
from align_cache.studies.results import Overall, Study, Tally, Verdict, side

METRICS = {
    "mean_recall": "mean recall",
    **{f"i2t_r{k}": f"R@{k} image → text" for k in (1, 5, 10)},
    **{f"t2i_r{k}": f"R@{k} text → image" for k in (1, 5, 10)},
}
_SPELLED_OUT: dict[Verdict, str] = {
    "better here": "better on these images, not shown for others",
    "worse here": "worse on these images, not shown for others",
    "none shown": "no difference shown",
}


def findings(study: Study) -> list[str]:
    """Return what the study found: a sentence for each level, then how far to trust them."""
    lines = [_level_in_words(study, level) for level in study.others]
    return [*lines, _tally_in_words(study), _error_in_words(study), *_failures_in_words(study)]


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, signed."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def bounds(interval: Sequence[float] | None) -> str:
    """Return an interval of a difference in points."""
    return "one seed" if interval is None else f"[{points(interval[0])}, {points(interval[1])}]"


def spread(found: Spread | None) -> str:
    """Return a share in percent, ``mean ± sd``."""
    if found is None:
        return NOT_MEASURED
    mean = f"{100 * found.mean:.1f}"
    return mean if found.sd is None else f"{mean} ± {100 * found.sd:.1f}"


def where(study: Study) -> str:
    """Say what the runs were judged on."""
    sizes = " or ".join(
        f"{count(images)} images, {count(captions)} captions" for images, captions in study.sizes
    )
    return f"{study.split} split, N = {sizes}"


def untrained_key(study: Study) -> list[str]:
    """Return the line that everything about untrained encoders carries; none where all are trained."""
    return [f"UNTRAINED encoders: {', '.join(study.untrained)}"] if study.untrained else []


def _level_in_words(study: Study, level: int) -> str:
    """Say how a level compares in the first metric, and sort the others by what was found."""
    against = f"{setting(study.levels[level])} against {setting(study.baseline)}"
    first, *others = study.metrics
    overall = study.overall(first, level)
    if overall is None:
        return f"{against}: not measured, as no seed has every run of both."
    mean, interval, n = overall.difference.mean, overall.difference.interval, overall.difference.n
    pooled = f"pooled over {_number(len(study.conditions), 'condition')} and {_number(n, 'seed')}"
    sentences = [
        f"{against}, {METRICS[first]}: {points(mean)} points {bounds(interval)}, {pooled}: "
        f"{_spelled_out(overall)}.",
        _conditions_in_words(study, first, level),
    ]
    by_verdict: dict[str, list[str]] = {}
    for metric in others:
        found = study.overall(metric, level)
        assert found is not None  # a run has every metric or none
        by_verdict.setdefault(_spelled_out(found), []).append(METRICS[metric])
    if by_verdict:
        rest = (f"{said}: {', '.join(names)}" for said, names in by_verdict.items())
        sentences.append(f"The other metrics: {'; '.join(rest)}.")
    return " ".join(filter(None, sentences))


def _conditions_in_words(study: Study, metric: str, level: int) -> str:
    """Name the conditions whose own interval excludes zero; nothing where there is one condition."""
    if len(study.conditions) == 1:
        return ""
    sides: dict[int, list[Mapping[str, Any]]] = {1: [], -1: []}
    for place, values in enumerate(study.conditions):
        difference = study.difference(metric, place, level)
        if difference is not None and (where_it_lies := side(difference.interval)):
            sides[where_it_lies].append(values)
    told = [f"{word} zero with {_together(sides[which])}" for word, which in (("above", 1), ("below", -1))
            if sides[which]]  # fmt: skip
    return f"By condition: {'; '.join(told)}." if told else "No single condition shows a difference."


def _together(conditions: Sequence[Mapping[str, Any]]) -> str:
    """Name conditions in one phrase."""
    if len(conditions[0]) > 1:
        return "; ".join(
            ", ".join(f"{key} = {setting(value)}" for key, value in each.items()) for each in conditions
        )
    (key,) = conditions[0]
    return f"{key} = {', '.join(setting(each[key]) for each in conditions)}"


def _tally_in_words(study: Study) -> str:
    """Say how many intervals exclude zero, and how many would if there were nothing to find."""
    single, pooled = study.tally(), study.overall_tally()
    if not single.n:
        return "No difference has an interval: that takes two seeds."
    grid = " × ".join(
        _number(len(parts), noun)
        for parts, noun in (
            (study.others, "level"),
            (study.conditions, "condition"),
            (study.metrics, "metric"),
        )
    )
    return (
        f"Intervals that exclude zero: {_excluding(single)} under single conditions ({grid}); "
        f"{_excluding(pooled)} pooled ones. None is widened for their number, and they depend on one "
        "another: levels share the baseline's runs, metrics share all runs."
    )


def _excluding(tally: Tally) -> str:
    found = f"{tally.above} above and {tally.below} below, by chance alone {tally.by_chance:.1f}"
    return f"{tally.above + tally.below} ({found}) of {tally.n}"


def _error_in_words(study: Study) -> str:
    """Set the error that the choice of images makes beside the differences."""
    first = study.metrics[0]
    images = " or ".join(count(n_images) for n_images, _ in study.sizes)
    sentence = (
        f"Intervals are over seeds, and other images would move every run: on {images} images the standard "
        f"error of one run's {METRICS[first]} is {100 * study.error_of_one_run(first):.1f} points"
    )
    if first != "i2t_r1" and "i2t_r1" in study.metrics:
        sentence += f", of its {METRICS['i2t_r1']} {100 * study.error_of_one_run('i2t_r1'):.1f}"
    found = (study.overall(first, level) for level in study.others)
    errors = [overall.image_error for overall in found if overall is not None]
    if not errors:
        return f"{sentence}."
    shown = dict.fromkeys(f"{100 * error:.2f}" for error in (min(errors), max(errors)))
    return f"{sentence}; of the pooled differences, paired image by image, {' to '.join(shown)}."


def _failures_in_words(study: Study) -> Iterator[str]:
    if study.failed:
        n_runs = len(study.trials) + len(study.failed)
        yield f"{len(study.failed)} of {n_runs} runs failed and are in no number."


def _spelled_out(overall: Overall) -> str:
    return _SPELLED_OUT.get(overall.verdict, overall.verdict)


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
