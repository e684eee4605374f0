"""Zero-shot classification as tables: the ensemble of prompts, each prompt alone, chance, and the classes."""

from __future__ import annotations

from collections.abc import Iterator

from align_cache.reporting.tables import SPACES, Record, Table
from align_cache.reporting.wording import count, percent, percents
from align_cache.run_records import dig

_SHOWN_CLASSES = 20
"""Of more classes, the half of these that is told worst and the half that is told best are shown."""
_EMPTY = ("", "")


def zero_shot_tables(record: Record) -> list[Table]:
    """Return accuracy and classes of an evaluation; none where zero-shot was not asked for."""
    found = record.get("zero_shot")
    return [] if found is None else [_accuracy_table(found), _class_table(found)]


def _accuracy_table(found: Record) -> Table:
    rows: list[tuple[str, ...]] = []
    for space in reversed(SPACES):
        judged = found.get(space)
        if judged is not None:  # None: two encoders' features have no common space, nothing is missing
            rows += [(space, *_cells(judged), *_cells(judged.get("top5")), count(judged.get("n")))]
            rows += [(f"· {label}", percent(value), *("",) * 4) for label, value in _alone(judged)]
    chance_top5 = found.get("chance_top5")
    top = "" if chance_top5 is None else percent(chance_top5)
    rows.append(("chance", percent(found.get("chance")), "", top, "", ""))
    columns = ("", "top-1", "95%", "top-5", "95%", "images")
    return Table(f"Zero-shot: {found.get('name')}", columns, tuple(rows), _note(found))


def _cells(share: Record | None) -> tuple[str, str]:
    """Accuracy and its interval; empty where there are too few classes for a top-5."""
    return _EMPTY if share is None else (percent(share.get("accuracy")), percents(share.get("interval")))


def _alone(judged: Record) -> Iterator[tuple[str, float]]:
    """Yield what single prompts reach by themselves, where there is more than one."""
    accuracies = sorted(prompt["accuracy"] for prompt in judged.get("prompts") or ())
    if len(accuracies) > 1:
        yield "worst prompt alone", accuracies[0]
        yield "mean of the prompts alone", sum(accuracies) / len(accuracies)
        yield "best prompt alone", accuracies[-1]


def _note(found: Record) -> str:
    prompts = sorted(dig(found, "embeddings", "prompts") or (), key=lambda prompt: prompt["accuracy"])
    sentences = [
        f"{count(found.get('n_classes'))} classes, {_prompts(found)}, test split",
        "95%: Wilson intervals over images",
    ]
    if len(prompts) > 1:
        sentences.append(f"worst: {prompts[0]['prompt']!r}, best: {prompts[-1]['prompt']!r}")
    return "; ".join([*sentences, *(found.get("notes") or ())])


def _prompts(found: Record) -> str:
    if found.get("n_templates") is None:
        return f"{count(found.get('n_prompts'))} prompts"
    return f"{count(found['n_templates'])} prompts each"


def _class_table(found: Record) -> Table:
    """Return the embeddings' accuracy class by class, the classes that are told worst first."""
    known = [entry for entry in dig(found, "embeddings", "classes") or () if entry["n"]]
    ordered = sorted(known, key=lambda entry: (entry["accuracy"], entry["name"]))
    half = _SHOWN_CLASSES // 2
    shown = ordered if len(ordered) <= _SHOWN_CLASSES else ordered[:half] + ordered[-half:]
    rows = tuple((entry["name"], *_cells(entry), count(entry["n"])) for entry in shown)
    note = "embeddings, all prompts"
    if len(shown) < len(ordered):
        note += f"; the {half} worst and the {half} best of {count(len(ordered))}"
    title = f"Zero-shot by class: {found.get('name')}"
    return Table(title, ("class", "top-1", "95%", "images"), rows, note)
