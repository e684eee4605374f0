"""What the page says first: the tiles, and the run told in two sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from align_cache.reporting import prose
from align_cache.reporting.tables import HYPOTHESES, METRICS, Record, chance_recall, metric_title, probe_title
from align_cache.reporting.wording import NOT_MEASURED, count, interval, number, percent, percents, text
from align_cache.run_records import DIRECTIONS, RunRecords, dig


@dataclass(frozen=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    detail: str
    tone: str = ""
    """``good`` or ``bad`` for a verdict, empty for a number."""


def tiles(run: RunRecords) -> list[Tile]:
    """Return the headline numbers: retrieval, alignment with a reference, hypotheses, probe, zero-shot."""
    judged = run.judged
    classified = (*_probe(run.probe), *_zero_shot(judged))
    # Without a reference there is nothing to be like: three tiles that say "not measured" say nothing.
    has_reference = dig(run.record, "reference", "encoder") is not None
    compared = (_alignment(judged), *_verdicts(judged)) if has_reference else ()
    return [*_retrieval(judged), *compared, *classified]


def _retrieval(judged: Record) -> Iterator[Tile]:
    for key, label in DIRECTIONS.items():
        direction = dig(judged, "embeddings", "retrieval", key)
        if direction is None:
            yield Tile(f"Recall at 1, {label}", NOT_MEASURED, "")
            continue
        chance = chance_recall(direction, 1)
        size = f"{count(direction['n_queries'])} queries among {count(direction['n_candidates'])}"
        times = f"{direction['r1'] / chance:,.0f} × chance ({chance:.2%})"
        bounds = dig(direction, "intervals", "r1")
        known = f"95% interval {percents(bounds)}"
        yield Tile(f"Recall at 1, {label}", percent(direction["r1"]), f"{known}; {times}; {size}")


def _first_metric(judged: Record) -> str:
    return next(iter(dig(judged, "embeddings", "alignment") or {}), "mutual_knn")


def _alignment(judged: Record) -> Tile:
    metric = _first_metric(judged)
    pairs = dig(judged, "embeddings", "alignment", metric) or {}
    chance = dig(judged, "chance", metric)
    bounds = dig(judged, "embeddings", "intervals", metric, "aligned_reference")
    known = f"95% interval {interval(bounds)}"
    others = f"image {number(pairs.get('image_reference'), 3)}, text {number(pairs.get('text_reference'), 3)}"
    label = f"{metric_title(metric)}, aligned – reference"
    size = f"chance {number(chance, 3)}; N = {count(judged.get('n_images'))}, k = {count(judged.get('k'))}"
    return Tile(label, number(pairs.get("aligned_reference"), 3), f"{known}; {others}, {size}")


def _verdicts(judged: Record) -> Iterator[Tile]:
    metric = _first_metric(judged)
    for key, claim in HYPOTHESES.items():
        test = dig(judged, "hypotheses", "embeddings", metric, key) or {}
        verdict, margin = test.get("verdict"), test.get("margin")
        bounds = test.get("interval")
        shown = "interval not measured" if bounds is None else f"95% interval {interval(bounds, signed=True)}"
        tone = {"supported": "good", "not supported": "bad"}.get(verdict or "", "")
        value = verdict or number(margin, 3, signed=True)
        detail = f"{claim}: margin {number(margin, signed=True)}, {shown}" if margin is not None else claim
        yield Tile(f"{key.upper()}, {METRICS.get(metric, metric)}", value, detail, tone)


def _probe(probe: Record | None) -> Iterator[Tile]:
    heads = dig(probe, "rows", "image_embeddings") or {}
    if not heads:
        return
    head = "linear" if "linear" in heads else next(iter(heads))
    embeddings = heads[head]
    reference = dig(probe, "rows", "reference_features", head, "accuracy")
    name = text(dig(probe, "name") or dig(probe, "probe"))
    tested = f"{count(embeddings.get('n_test'))} test images"
    detail = f"reference {percent(reference)}; {tested}" if reference is not None else tested
    yield Tile(f"{probe_title(head, embeddings)}, {name}", percent(embeddings.get("accuracy")), detail)


def _zero_shot(judged: Record) -> Iterator[Tile]:
    found = judged.get("zero_shot")
    if found is None:
        return
    judged_embeddings = found["embeddings"]
    known = f"95% interval {percents(judged_embeddings['interval'])}"
    size = f"{count(judged_embeddings['n'])} images of {count(found['n_classes'])} classes"
    label = f"Zero-shot, {text(found['name'])}"
    detail = f"{known}; chance {percent(found['chance'])}; {size}"
    yield Tile(label, percent(judged_embeddings["accuracy"]), detail)


def story(run: RunRecords) -> str:
    """Return what was trained on what, in plain words."""
    record = run.record
    image, texts, reference = (dig(record, role, "encoder") for role in ("image", "text", "reference"))
    target = "" if reference is None else f", with {reference} as the reference"
    return (
        f"Adapters ({text(record.get('adapter'))}, {count(record.get('n_parameters'))} parameters) bring the"
        f" frozen features of {text(image)} (image) and {text(texts)} (text) into one space of"
        f" {count(record.get('embed_dim'))} dimensions{target}. They were trained on"
        f" {count(record.get('n_train_images'))} images and {count(record.get('n_train_captions'))} captions"
        f" of {text(record.get('dataset'))}; the encoders themselves never changed."
    )


def warnings(run: RunRecords) -> list[str]:
    """Return what a reader has to know before any number: untrained encoders, a run that is not done."""
    found = []
    if run.untrained:
        names = ", ".join(run.untrained)
        found.append(f"UNTRAINED: {names}. {prose.UNTRAINED}")
    status = run.record.get("status")
    if status != "finished":
        reason = f" ({run.record['error']})" if run.record.get("error") else ""
        found.append(f"This run is {text(status)}{reason}: what follows is as far as it came.")
    if run.evaluation is None:
        found.append(
            "Not evaluated yet: the numbers are those of the validation split. Run align-cache eval."
        )
    return found
