"""How a comparison of runs names its numbers and writes their values, in tables, figures and pages alike."""

from __future__ import annotations

from textwrap import wrap

from align_cache.judging.comparison import Comparison, Spread
from align_cache.reporting.tables import METRICS, PAIRS, PARAMETERS
from align_cache.reporting.wording import NOT_MEASURED, count, number
from align_cache.run_records import DIRECTIONS

TRAINING = {
    "val_loss": "val loss",
    "distribution.variance_difference": "variance difference",
    "distribution.modality_gap": "modality gap",
}
_KEY_WIDTH = 140
"""Characters of a figure's key in one line."""


def words(name: str) -> tuple[str, str]:
    """Return what a number of a comparison is called, in two parts: the quantity, and of what."""
    match name.split("."):
        case ["retrieval", way, recall]:
            return f"R@{recall.removeprefix('r')}, %", DIRECTIONS[way]
        case ["alignment", metric, pair]:
            return METRICS.get(metric, metric), PAIRS[pair]
        case ["calibrated", metric, pair]:
            return f"calibrated {METRICS.get(metric, metric)}", PAIRS[pair]
        case ["hypotheses", baseline, metric, key]:
            return f"{key.upper()} margin, {METRICS.get(metric, metric)}", f"against {baseline}"
        case ["similarity", kind]:
            return "cosine similarity", f"{kind} pairs"
        case ["probe", *dataset, row, head]:
            return f"{'.'.join(dataset)} probe, %", f"{row.replace('_', ' ')}, {head}"
        case ["zero_shot", *dataset, top]:
            return f"{'.'.join(dataset)} zero-shot, %", top.replace("top", "top-")
        case _:
            return TRAINING[name], "validation" if name == "val_loss" else "embeddings"


def in_percent(name: str) -> bool:
    """Say whether a number is a share, and shown in percent."""
    return name.startswith(("retrieval.", "probe.", "zero_shot."))


def setting(value: object) -> str:
    """Return the value of a setting as it would be typed."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return "[" + ", ".join(setting(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def group_key(comparison: Comparison) -> list[str]:
    """Return what each group is, as lines no wider than a figure."""
    lines = []
    for index, group in enumerate(comparison.groups, start=1):
        settings = ", ".join(f"{key} = {setting(value)}" for key, value in group.settings.items())
        told = f"{index}   {settings or 'one group'}   (n = {len(group.runs)})"
        lines += wrap(told, _KEY_WIDTH, subsequent_indent="     ")
    return lines


def untrained_key(comparison: Comparison) -> list[str]:
    """Return the line that every figure of untrained encoders carries; none where all are trained."""
    return [f"UNTRAINED encoders: {', '.join(comparison.untrained)}"] if comparison.untrained else []


def parts(comparison: Comparison, family: str, place: int) -> list[str]:
    """Return what stands at one place of the dotted names of a family, each once."""
    names = (name for name in comparison.names if name.startswith(f"{family}."))
    return list(dict.fromkeys(name.split(".")[place] for name in names))


def spread(name: str, value: Spread | None) -> str:
    """Return ``mean ± sd``, the mean alone where there is one run, ``not measured`` for None."""
    if value is None:
        return NOT_MEASURED
    mean = share_or_number(name, value.mean, signed=name.startswith("hypotheses."))
    return mean if value.sd is None else f"{mean} ± {share_or_number(name, value.sd)}"


def spread_note(comparison: Comparison) -> str:
    """Say what stands behind each number."""
    if all(len(group.runs) == 1 for group in comparison.groups):
        return "one run a group: nothing is known of the spread over seeds"
    return "everywhere: mean ± standard deviation over seeds"


def share_or_number(name: str, value: float, *, signed: bool = False, decimals: int = 1) -> str:
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
