"""The model card: what a model was made of, how it was judged, what it is no good for, how it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from align_cache.encoders.named import NAMED
from align_cache.reporting.markdown import markdown
from align_cache.reporting.tables import Table, alignment_table, probe_table, retrieval_table
from align_cache.reporting.wording import count
from align_cache.reporting.zero_shot import zero_shot_tables
from align_cache.results import Record, Run
from align_cache.settings import FitConfig
from align_cache.use.known_encoder import KnownEncoder

if TYPE_CHECKING:
    from align_cache.use.model import AlignedModel

_OF_THE_RUN = (
    *("id", "created", "dataset", "adapter", "n_parameters", "n_train_images", "n_train_captions"),
    *("n_val_images", "batch_size", "seed", "precision"),
)
"""What is told of a run; its command may name folders of the machine."""


def run_records(run: Run, *, epoch: int) -> dict[str, Record | None]:
    """Collect what a card tells of a run: the run itself, and the latest evaluation of that very epoch.

    The evaluation comes without its gallery, whose captions are the dataset's and not to be published.
    """
    info = run.info()
    judged = (
        {name: part for name, part in line.items() if name != "gallery"}
        for line in reversed(run.results())
        if line.get("kind") == "evaluation" and line.get("epoch") == epoch
    )
    return {
        "run": {**{name: info.get(name) for name in _OF_THE_RUN}, "epoch": epoch},
        "evaluation": next(judged, None),
    }


def write_card(model: AlignedModel) -> ModelCard:
    """Write the card of a model from its records; the licence is left to whoever publishes it."""
    hub_models = [name for each in (model.image_encoder, model.text_encoder) if (name := _hub_model(each))]
    header = ModelCardData(
        library_name="align-cache",
        pipeline_tag="zero-shot-image-classification",
        base_model=hub_models or None,
        tags=["align-cache", "image-text-retrieval", *(["untrained-encoders"] if _untrained(model) else [])],
    )
    body = "\n\n".join("\n".join(part).strip() for part in _sections(model))
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n{body}\n")


def _sections(model: AlignedModel) -> Iterator[Iterator[str]]:
    yield _head(model)
    yield _loading(model)
    yield _encoders(model)
    yield _training(model.config, model.records.get("run") or {})
    yield _evaluation(model.records.get("evaluation"))
    yield _limits(model)


def _head(model: AlignedModel) -> Iterator[str]:
    image, text = model.image_encoder.name, model.text_encoder.name
    yield f"# {image} and {text} in one space\n"
    yield (
        "Two frozen encoders and a small trained adapter on each: pictures and sentences become unit-norm "
        f"vectors of {model.embed_dim} components, near each other where they belong together. The adapters "
        "are here; the encoders are loaded from where they are published, or from your disk. Made with "
        "align-cache."
    )
    if untrained := _untrained(model):
        yield (
            f"\n**Untrained encoders: {', '.join(untrained)}.** Their weights are random; the numbers below "
            "judge adapters on random features."
        )


def _loading(model: AlignedModel) -> Iterator[str]:
    yield "## How to load\n"
    yield "```python\nfrom align_cache import AlignedModel\n"
    yield 'model = AlignedModel.from_pretrained("FOLDER")  # or "owner/name" on the hub'
    yield "images = " + _embedding_call(model.image_encoder, '["dog.jpg", "cat.jpg"]')
    yield "texts = " + _embedding_call(model.text_encoder, '["a dog in the snow"]')
    yield "print(model.similarity(images, texts))\n```"
    for each in (model.image_encoder, model.text_encoder):
        if each.weights_path is not None:
            yield (
                f"\nThe weights of the {each.modality} encoder are a file, no part of the model: pass "
                f'`weights={{"{each.modality}": "PATH"}}`. They have to be {each.identity.get("weights")}.'
            )


def _embedding_call(known: KnownEncoder, examples: str) -> str:
    if known.request is not None:
        return f"model.encode_{known.modality}({examples})"
    return f"model.embed_{known.modality}_features(features)  # {known.name}, unit-norm (n, {known.dim})"


def _encoders(model: AlignedModel) -> Iterator[str]:
    yield "## Encoders\n"
    yield "| | encoder | weights | features | computed in |\n| --- | --- | --- | --- | --- |"
    for each in (model.image_encoder, model.text_encoder):
        weights = "none" if each.holds_tokens else each.identity.get("weights", "imported features")
        width = f"{each.dim} token ids" if each.holds_tokens else str(each.dim)
        noise = "" if each.noise is None else f", trained with {each.noise}"
        yield f"| {each.modality} | `{each.name}`{noise} | `{weights}` | {width} | {each.precision or '–'} |"


def _training(config: FitConfig, run: Record) -> Iterator[str]:
    adapter, loss = config.adapter, config.loss
    yield "## Training\n"
    yield (
        f"- Data: `{config.data.dataset}`, {count(run.get('n_train_images'))} images with "
        f"{count(run.get('n_train_captions'))} captions; {count(run.get('n_val_images'))} images validated."
    )
    tower = "" if adapter.text_type is None else f", a text tower `{adapter.text_type}` trained on token ids"
    yield f"- Adapters: `{adapter.type}`{tower}, {count(run.get('n_parameters'))} parameters."
    if adapter.closed_form is None:
        reference = f" towards `{config.data.reference}`" if config.data.reference else ""
        term = f", {loss.distribution} matching of weight {loss.variance_weight}{reference}"
        yield (
            f"- Loss: `{loss.contrastive}`, temperature {loss.temperature}"
            f"{' (learned)' if loss.learn_temperature else ''}{term if loss.distribution_matching else ''}; "
            f"{config.optim.epochs} epochs, seed {run.get('seed')}."
        )
    else:
        yield "- Solved for in closed form; nothing was trained by steps."
    yield f"- Weights: epoch {run.get('epoch')} of run `{run.get('id')}`, {run.get('created')}."


def _evaluation(record: Record | None) -> Iterator[str]:
    yield "## Evaluation\n"
    if record is None:
        yield "Not measured: these weights were saved before `align-cache eval` judged them."
        return
    if untrained := record.get("untrained"):
        yield f"Untrained, and so random in every number below: {', '.join(untrained)}.\n"
    probe = probe_table(record)
    tables = [retrieval_table(record), *zero_shot_tables(record)[:1], alignment_table(record)]
    for table in [*tables, *([] if probe is None else [probe])]:
        yield from _titled(table)


def _titled(table: Table) -> Iterator[str]:
    yield f"### {table.title}\n"
    yield from markdown(table)


def _limits(model: AlignedModel) -> Iterator[str]:
    yield "## Limits\n"
    run: Mapping[str, Any] = model.records.get("run") or {}
    yield (
        f"- It was trained on {count(run.get('n_train_images'))} images of one dataset: pictures and words "
        "of another kind are likely to be embedded badly. Measure on your own before you rely on it."
    )
    yield "- The adapters inherit what the encoders and the captions are biased towards; it was not measured."
    yield (
        f"- Probabilities of zero-shot classification are a softmax at temperature {model.temperature:.3g}; "
        "they are not calibrated."
    )
    if (length := model.text_encoder.identity.get("max_length")) is not None:
        yield f"- Sentences are cut after {length} tokens."
    yield "- The encoders and the data keep their licences; this card names none for the adapters."


def _untrained(model: AlignedModel) -> list[str]:
    return [each.name for each in (model.image_encoder, model.text_encoder) if each.untrained]


def _hub_model(known: KnownEncoder) -> str | None:
    """Return the hub's name of an encoder whose published weights are used."""
    if known.request is None or known.untrained or known.request.weights != "pretrained":
        return None
    if known.name in NAMED:
        return NAMED[known.name].repo_id.partition("@")[0]
    family, _, rest = known.name.partition(":")
    return rest.partition(":")[0].partition("@")[0] if family == "hf" else None
