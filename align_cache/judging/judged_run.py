"""One run as a comparison sees it: its settings, and the numbers of its latest evaluation.

Reads run folders and never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from align_cache.results import Record, Run
from align_cache.run_records import DIRECTIONS, RECALLS, SIMILARITY, RunRecords, dig, read_run

_FEATURE_SETTINGS = {
    "image": "data.image_encoder",
    "text": "data.text_encoder",
    "reference": "data.reference",
}
_SPREAD = ("variance_difference", "modality_gap")
_CONDITIONS = ("checkpoint", "split", "n_images", "n_captions", "k")


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A finished run and the numbers of its latest evaluation."""

    run: Run
    seed: int
    created: str
    settings: Record
    """By dotted name: all but the seed and the log's, and under ``eval.`` what the evaluation was made on."""
    numbers: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95% intervals over items, of the numbers that have one."""
    verdicts: dict[str, str]
    p_values: dict[str, float]
    """Of the permutation null, by the name of the calibrated score."""
    permutations: int
    """Its shuffles; 0 where there was none."""
    epochs: tuple[Mapping[str, Any], ...]
    """One record per validation, epoch 0 first."""
    untrained: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that enters no mean."""

    run: str
    status: str
    reason: str
    remedy: str | None
    """The command that makes it comparable."""


def judge(run: Run) -> JudgedRun | LeftOut:
    """Read one run, or say why it cannot be compared.

    Raises
    ------
    RunError
        If the run folder is damaged.
    """
    records = read_run(run.folder)
    info, evaluation = records.record, records.evaluation
    status = str(info.get("status"))
    if status != "finished":
        reason = f"{status}: {info['error']}" if info.get("error") else f"is {status}"
        return LeftOut(run.id, status, reason, f"align-cache fit --resume {run.id}")
    if evaluation is None:
        return LeftOut(run.id, status, "has no evaluation", f"align-cache eval {run.id}")
    config = _flat(run.config())
    checkpoint, epoch = evaluation.get("checkpoint"), evaluation.get("epoch")
    current = records.best_epoch if checkpoint == "best" else config.get("optim.epochs")
    if epoch != current:
        reason = f"was evaluated at epoch {epoch}, and its {checkpoint} is now {current}"
        return LeftOut(run.id, status, reason, f"align-cache eval {run.id} --checkpoint {checkpoint}")
    return JudgedRun(
        run=run,
        seed=int(config["seed"]),
        created=str(info.get("created") or ""),
        settings=settings_of(run, info) | {f"eval.{name}": evaluation.get(name) for name in _CONDITIONS},
        numbers=dict(_numbers(records, evaluation)),
        intervals=dict(_intervals(evaluation)),
        verdicts=dict(_verdicts(evaluation)),
        p_values={name: found["p"] for name, found in _nulls(evaluation) if found.get("p") is not None},
        permutations=evaluation.get("permutations") or 0,
        epochs=records.epochs,
        untrained=records.untrained,
    )


def list_entry(run: Run) -> Record:
    """Return ``run.json`` with the run's folder and what a list shows of its latest evaluation.

    ``recall_at_1`` holds ``image_to_text`` and ``text_to_image``, and is None before the first evaluation.
    """
    records = read_run(run.folder)
    recall = {way: dig(records.evaluation, "embeddings", "retrieval", way, "r1") for way in DIRECTIONS}
    evaluated = records.evaluation is not None
    return {**records.record, "folder": str(run.folder), "recall_at_1": recall if evaluated else None}


def settings_of(run: Run, info: Mapping[str, Any]) -> Record:
    """Return what has to be equal for two runs to be two seeds of one thing: all but the seed and the log's.

    A setting names an encoder, and several feature sets can bear that name: the one that was opened counts.
    """
    config = _flat(run.config())
    settings = {key: value for key, value in config.items() if key != "seed" and not key.startswith("log.")}
    for role, key in _FEATURE_SETTINGS.items():
        features = info.get(role)
        settings[key] = f"{features['encoder']}@{features['key8']}" if features else None
    return settings


def _numbers(records: RunRecords, evaluation: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what a run is compared by; what was not measured is absent."""
    embeddings = evaluation.get("embeddings")
    found = {f"retrieval.{way}.r{k}": dig(embeddings, "retrieval", way, f"r{k}")
             for way in DIRECTIONS for k in RECALLS}  # fmt: skip
    for metric, pairs in (dig(embeddings, "alignment") or {}).items():
        found |= {f"alignment.{metric}.{pair}": value for pair, value in pairs.items()}
    found |= {name: null.get("calibrated") for name, null in _nulls(evaluation)}
    found |= {name: test.get("margin") for name, test in _tests(evaluation)}
    epochs = (epoch for epoch in records.epochs if epoch["epoch"] == evaluation.get("epoch"))
    found["val_loss"] = dig(next(epochs, None), "val", "loss")
    found |= {f"similarity.{name}": dig(embeddings, "similarity", name) for name in SIMILARITY}
    found |= {f"distribution.{name}": dig(embeddings, "distribution", name) for name in _SPREAD}
    for row, heads in (dig(evaluation, "probe", "rows") or {}).items():
        dataset = dig(evaluation, "probe", "name")
        found |= {f"probe.{dataset}.{row}.{_head(head, judged)}": dig(judged, "accuracy")
                  for head, judged in heads.items()}  # fmt: skip
    if zero_shot := evaluation.get("zero_shot"):
        for top, path in {"top1": ("accuracy",), "top5": ("top5", "accuracy")}.items():
            found[f"zero_shot.{zero_shot['name']}.{top}"] = dig(zero_shot, "embeddings", *path)
    yield from ((name, float(value)) for name, value in found.items() if value is not None)


def _intervals(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield the 95% intervals over items, by the number they are of."""
    embeddings, probe = evaluation.get("embeddings"), evaluation.get("probe")
    found = {f"retrieval.{way}.r{k}": dig(embeddings, "retrieval", way, "intervals", f"r{k}")
             for way in DIRECTIONS for k in RECALLS}  # fmt: skip
    for metric, pairs in (dig(embeddings, "intervals") or {}).items():
        found |= {f"alignment.{metric}.{pair}": bounds for pair, bounds in pairs.items()}
    found |= {name: test.get("interval") for name, test in _tests(evaluation)}
    for row, heads in (dig(probe, "rows") or {}).items():
        found |= {f"probe.{dig(probe, 'name')}.{row}.{_head(head, judged)}": dig(judged, "interval")
                  for head, judged in heads.items()}  # fmt: skip
    yield from ((name, (bounds[0], bounds[1])) for name, bounds in found.items() if bounds is not None)


def _nulls(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, Record]]:
    """Yield what shuffling gave for the embeddings, by the name of the calibrated score."""
    for metric, pairs in (dig(evaluation, "embeddings", "null") or {}).items():
        yield from ((f"calibrated.{metric}.{pair}", found) for pair, found in pairs.items())


def _head(name: str, judged: Record) -> str:
    """Return a probe head's name with what its numbers depend on: those of another k are another number."""
    k = dig(judged, "k")
    return name if k is None else f"{name}_k{k}"


def _verdicts(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, test["verdict"]) for name, test in _tests(evaluation) if test.get("verdict"))


def _tests(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, Record]]:
    """Yield each margin by its name."""
    for baseline, metrics in (evaluation.get("hypotheses") or {}).items():
        for metric, tests in metrics.items():
            yield from ((f"hypotheses.{baseline}.{metric}.{key}", test) for key, test in tests.items())


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Record:
    """Return ``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: Record = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
