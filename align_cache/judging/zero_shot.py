"""Zero-shot classification of a labelled dataset: its images and its class prompts in a run's space."""

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align_cache.adapters.pair import AdapterPair
from align_cache.errors import CacheError, PairingError
from align_cache.metrics.zero_shot import TOP, zero_shot
from align_cache.pairing.embedding import FeatureRows, embed_rows
from align_cache.probes.labelled import open_like, require_labelled
from align_cache.store import FeatureSet, find


@dataclass(frozen=True, slots=True)
class Prompts:
    """The class prompts of a text feature set."""

    features: FeatureSet
    labels: NDArray[np.int64]
    """Class of each prompt, shape (m,)."""
    names: dict[int, str]
    """Name of each class that has prompts."""
    templates: NDArray[np.int64] | None
    """Which sentence each prompt is of, shape (m,); None where not every class stands once in each."""


@dataclass(frozen=True, slots=True)
class ZeroShotSets:
    """Images and class prompts of a labelled dataset, by the run's own encoders."""

    image: FeatureSet
    prompts: Prompts
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The dataset."""
        return self.image.dataset


def open_zero_shot_sets(
    cache_dir: Path,
    dataset: str,
    *,
    image: FeatureSet,
    text: FeatureSet,
    image_encoder: str | None = None,
    text_encoder: str | None = None,
) -> ZeroShotSets:
    """Find a dataset's images and class prompts by the encoders that a run used.

    Parameters
    ----------
    image, text : FeatureSet
        The run's own; the dataset's must come from the same encoders with the same settings.
    image_encoder, text_encoder : str, optional
        Names under which its features lie where they differ from the run's. What cannot be compared
        (features brought in from elsewhere) is noted.

    Raises
    ------
    CacheError
        If they are missing or damaged; says how to extract them.
    PairingError
        If they are of another encoder, have no labelled test images, or are no class prompts.
    """
    notes: list[str] = []
    images = _opened(cache_dir, dataset, image, image_encoder, notes)
    require_labelled(images, "test", purpose="classified zero-shot")
    prompts = _as_prompts(_opened(cache_dir, dataset, text, text_encoder, notes))
    _check_names(images, prompts, notes)
    return ZeroShotSets(images, prompts, tuple(notes))


@torch.inference_mode()
def classify_by_prompts(
    pair: AdapterPair, sets: ZeroShotSets, *, same_space: bool, device: torch.device
) -> dict[str, Any]:
    """Classify the test images by the prompts' embeddings and, in one space, by the raw features.

    Parameters
    ----------
    pair : AdapterPair
        In evaluation mode, on the device.
    same_space : bool
        Whether the encoders' own features share a space; then they are judged too.

    Returns
    -------
    dict
        ``name``, ``n_classes``, ``n_prompts``, ``n_templates`` (None where it cannot be told), ``chance``,
        ``chance_top5``, ``embeddings``, ``features`` (None in two spaces), ``notes``; docs/metrics.md defines
        every number.
    """
    assert sets.image.splits is not None  # checked when the sets were opened
    assert sets.image.labels is not None
    prompts, n_classes = sets.prompts, len(sets.prompts.names)
    rows = np.flatnonzero(sets.image.splits == "test")
    texts = np.arange(prompts.features.rows)
    images_of = FeatureRows(sets.image, rows, device=device, where="mmap")
    prompts_of = FeatureRows(prompts.features, texts, device=device, where="mmap")
    labels = sets.image.labels[rows]
    embedded = (embed_rows(pair.image, images_of, rows)[0], embed_rows(pair.text, prompts_of, texts)[0])
    return {
        "name": sets.name,
        "n_classes": n_classes,
        "n_prompts": len(texts),
        "n_templates": None if prompts.templates is None else len(np.unique(prompts.templates)),
        "chance": 1 / n_classes,
        "chance_top5": TOP / n_classes if n_classes > TOP else None,
        "embeddings": _judge(*embedded, labels, prompts),
        "features": _judge(images_of.take(rows), prompts_of.take(texts), labels, prompts)
        if same_space
        else None,
        "notes": list(sets.notes),
    }


def _judge(images: Tensor, texts: Tensor, labels: NDArray[np.int64], prompts: Prompts) -> dict[str, Any]:
    found = zero_shot(images, labels, texts, prompts.labels, prompts.templates)
    names = [prompts.names[int(label)] for label in found.classes]
    return {**found.to_record(names), "prompts": _alone(prompts, found.by_template)}


def _alone(prompts: Prompts, by_template: tuple[float, ...] | None) -> list[dict[str, Any]] | None:
    """Name each template by its prompt of the first class, with the accuracy that it has by itself."""
    if by_template is None or prompts.templates is None:
        return None
    first = prompts.labels == prompts.labels.min()
    texts = prompts.features.texts
    shown = {}
    for row in np.flatnonzero(first).tolist():
        words = prompts.features.sample_ids[row] if texts is None else texts[row]
        shown[int(prompts.templates[row])] = str(words)
    return [{"prompt": shown[number], "accuracy": accuracy}
            for number, accuracy in zip(sorted(shown), by_template, strict=True)]  # fmt: skip


def _opened(
    cache_dir: Path, dataset: str, own: FeatureSet, encoder: str | None, notes: list[str]
) -> FeatureSet:
    if not find(cache_dir, dataset=dataset, encoder=encoder or own.encoder):
        what = "class prompts" if own.modality == "text" else "images"
        raise CacheError(f"no {what} of {dataset} by {encoder or own.encoder} in {cache_dir}",
                         hint=_mending_command(cache_dir, dataset, own, encoder))  # fmt: skip
    try:
        return open_like(cache_dir, dataset, own, encoder, notes)
    except PairingError as error:
        raise PairingError(error.message, hint=_mending_command(cache_dir, dataset, own, encoder)) from None


def _mending_command(cache_dir: Path, dataset: str, own: FeatureSet, encoder: str | None) -> str:
    """Spell the command that makes a dataset's features as the run's own were made."""
    identity = own.manifest.identity["encoder"]
    if identity.get("imported"):
        words = ["import", "FILE.npz", "--modality", own.modality, "--dataset", dataset]
        return f"align-cache {shlex.join([*words, '--encoder', encoder or own.encoder])}"
    words = ["extract", "--dataset", dataset, "--encoder", own.encoder]
    if own.untrained:
        words += ["--weights", identity["weights"]]
    counted_from = (identity.get("tokenizer") or {}).get("counted_from")
    if own.holds_tokens:
        words += ["--max-length", str(own.dim)] + (["--tokenizer", "FOLDER"] if counted_from is None else [])
    if counted_from is not None:
        sources = [stored.manifest for stored in find(cache_dir)
                   if stored.manifest.structure.dataset.samples == counted_from]  # fmt: skip
        words += ["--vocabulary", sources[0].name] if sources else []
    return f"align-cache {shlex.join(words)}"


def _as_prompts(features: FeatureSet) -> Prompts:
    """Read the classes of a text feature set, and the templates where they can be told from the ids."""
    labels, groups = features.labels, features.group_ids
    if labels is None or groups is None:
        raise PairingError(
            f"{features.name} holds captions, no class prompts: its rows have no labels",
            hint="imported prompts need an array label, and the class's name as group_id",
        )
    names = dict(zip(labels.tolist(), groups.tolist(), strict=True))
    pairs, called = set(zip(labels.tolist(), groups.tolist(), strict=True)), set(groups.tolist())
    if not 2 <= len(pairs) == len(names) == len(called):
        raise PairingError(f"{features.name} has {len(called)} class names for {len(names)} labels; "
                           "expected one each, and at least two")  # fmt: skip
    return Prompts(features, labels, names, _templates(features.sample_ids.tolist(), labels.tolist()))


def _templates(ids: list[str], labels: list[int]) -> NDArray[np.int64] | None:
    """Tell templates by what follows the last slash of an id; None where that makes no full grid."""
    ends = [name.rpartition("/")[2] for name in ids]
    known = {end: number for number, end in enumerate(dict.fromkeys(ends))}
    cells = Counter(zip(ends, labels, strict=True))
    if len(cells) < len(ids) or len(cells) != len(known) * len(set(labels)):
        return None
    return np.array([known[end] for end in ends], dtype=np.int64)


def _check_names(images: FeatureSet, prompts: Prompts, notes: list[str]) -> None:
    """Refuse prompts whose numbers stand for other classes than those of the images."""
    assert images.labels is not None
    if unknown := sorted(set(images.labels.tolist()) - prompts.names.keys()):
        raise PairingError(f"{prompts.features.name} has no prompts of {len(unknown)} labels of "
                           f"{images.name}, the first {unknown[0]}")  # fmt: skip
    if not images.label_names:
        notes.append(f"{images.name} does not name its classes: its labels are taken to be numbered as those "
                     f"of {prompts.features.name}")  # fmt: skip
        return
    for label, name in sorted(prompts.names.items()):
        known = images.label_names[label] if 0 <= label < len(images.label_names) else None
        if name != known:
            raise PairingError(f"class {label} is {name!r} in {prompts.features.name} and {known!r} in "
                               f"{images.name}")  # fmt: skip
