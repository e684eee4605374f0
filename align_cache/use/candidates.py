"""What can be found: the rows of a feature set that a model's own encoder made, by dataset and split."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import CacheError, UsageError
from align_cache.extraction.origin import recorded_origin
from align_cache.extraction.vocabulary import counted_set
from align_cache.pairing.embedding import BLOCK_ROWS
from align_cache.sources import SOURCES, takes_data_dir
from align_cache.splits import canonical_split
from align_cache.store import FeatureSet, find
from align_cache.store.catalog import StoredSet
from align_cache.store.layout import differences
from align_cache.store.manifest import Manifest

if TYPE_CHECKING:
    from align_cache.use.known_encoder import KnownEncoder
    from align_cache.use.model import AlignedModel


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of one feature set."""

    features: FeatureSet
    rows: NDArray[np.int64]
    """Which of its rows, ascending, shape (n,)."""
    notes: tuple[str, ...]
    """What has to be known of them."""

    def embeddings(self, model: AlignedModel) -> Iterator[NDArray[np.float32]]:
        """Give unit-norm embeddings (rows, D) in blocks, from the memory map through the adapter."""
        is_image = self.features.modality == "image"
        embed = model.embed_image_features if is_image else model.embed_text_features
        for start in range(0, len(self.rows), BLOCK_ROWS):
            yield embed(self.features.take(self.rows[start : start + BLOCK_ROWS]))


def open_candidates(
    encoder: KnownEncoder, *, cache_dir: Path, dataset: str, split: str | None = None
) -> Candidates:
    """Find the features of a dataset that an encoder of a model made.

    Parameters
    ----------
    encoder : KnownEncoder
        Of the images that are to be found, or of the captions.
    cache_dir : Path
    dataset : str
        Its name in the cache.
    split : str, optional
        The rows of this split alone; None: all rows.

    Returns
    -------
    Candidates
        Of several sets by the same encoder the one computed as the model's features were, else the largest.

    Raises
    ------
    CacheError
        If there is none, with the command that makes one; if it is damaged.
    UsageError
        If there is no such split.
    """
    stored, notes = _choose(encoder, cache_dir, dataset)
    features = FeatureSet.open(stored.folder)
    rows = _rows(features, split)
    if skipped := len(stored.manifest.skipped):
        notes.append(f"{skipped:,} samples were skipped when {features.name} was extracted and are not in it")
    return Candidates(features, rows, tuple(notes))


def _choose(encoder: KnownEncoder, cache_dir: Path, dataset: str) -> tuple[StoredSet, list[str]]:
    there = [stored for stored in find(cache_dir, dataset=dataset)
             if stored.manifest.modality == encoder.modality and stored.manifest.noise is None]  # fmt: skip
    same = [s for s in there if not differences(encoder.identity, s.manifest.identity["encoder"])]
    if same:
        return _best(encoder, same)
    if alike := [stored for stored in there if _may_be_of(encoder, stored.manifest)]:
        chosen, *others = sorted(alike, key=lambda stored: -stored.manifest.rows)
        taken = f"{chosen.manifest.name} is taken to be of the model's own {encoder.name}"
        return chosen, [f"{taken}: imported features do not say what made them", *_others(chosen, others)]
    raise CacheError(
        f"{dataset} has no features by the model's own {encoder.name} in {cache_dir}: "
        f"{_what_is_there(there, cache_dir)}",
        hint=_mending_command(encoder, cache_dir, dataset),
    )


def _may_be_of(encoder: KnownEncoder, manifest: Manifest) -> bool:
    """Say whether name and width are an encoder's, where one of both was imported and says no more."""
    imported = encoder.request is None or manifest.identity["encoder"].get("imported", False)
    return bool(imported) and (manifest.encoder, manifest.dim) == (encoder.name, encoder.dim)


def _what_is_there(others: list[StoredSet], cache_dir: Path) -> str:
    """Name what could have been meant: other sets of the dataset, else other datasets."""
    names = [stored.manifest.name for stored in others]
    names = names or sorted({stored.manifest.dataset for stored in find(cache_dir)})
    return f"there are {', '.join(names[:5])}" if names else "the cache has no finished feature sets"


def _best(encoder: KnownEncoder, same: list[StoredSet]) -> tuple[StoredSet, list[str]]:
    """Choose among sets of one encoder; what is not as the model's own features were made is noted."""

    def order(stored: StoredSet) -> tuple[bool, int]:
        return _precision(stored) != encoder.precision, -stored.manifest.rows

    chosen, *others = sorted(same, key=order)  # find gives them by name, and the sort is stable
    notes = []
    if _precision(chosen) != encoder.precision:
        computed = f"{chosen.manifest.name} was computed in {_precision(chosen)}"
        notes.append(f"{computed}, the model's own features in {encoder.precision}")
    return chosen, [*notes, *_others(chosen, others)]


def _others(chosen: StoredSet, others: list[StoredSet]) -> list[str]:
    if not others:
        return []
    names = ", ".join(stored.manifest.name for stored in others)
    return [f"{chosen.manifest.name} is searched; by the same encoder there are also {names}"]


def _precision(stored: StoredSet) -> str | None:
    precision: str | None = stored.manifest.structure.compute.get("precision")
    return precision


def _rows(features: FeatureSet, split: str | None) -> NDArray[np.int64]:
    if split is None:
        return np.arange(features.rows)
    known = [] if features.splits is None else sorted({name for name in features.splits.tolist() if name})
    wanted = canonical_split(split)
    if wanted not in known:
        raise UsageError(f"{features.name} has no split {wanted}; its splits: {', '.join(known) or 'none'}")
    return np.flatnonzero(features.splits == wanted)


def _mending_command(encoder: KnownEncoder, cache_dir: Path, dataset: str) -> str:
    """Spell the command that makes a dataset's features with a model's encoder, as far as it is known."""
    request = encoder.request
    if request is None:
        words = ["import", "FILE.npz", "--modality", encoder.modality, "--dataset", dataset]
        return f"align-cache {shlex.join([*words, '--encoder', encoder.name])}"
    flags = {
        "--encoder": request.name,
        "--weights": request.weights if request.weights != "pretrained" else None,
        "--tokenizer": request.tokenizer,
        "--pooling": request.pooling,
        "--max-length": request.max_length if encoder.modality == "text" else None,
        "--resize": request.resize if request.resize != "model" else None,
        "--decode": request.decode if request.decode != "model" else None,
        "--precision": encoder.precision,
        "--vocabulary": _counted_set(encoder, cache_dir),
    }
    words = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
    return f"align-cache extract {shlex.join([*_source_flags(cache_dir, dataset), *words])}"


def _counted_set(encoder: KnownEncoder, cache_dir: Path) -> str | None:
    """Name the set whose captions the encoder's vocabulary was counted from, where it is in the cache."""
    if encoder.counted_from is None:
        return None
    with suppress(CacheError):
        return counted_set(cache_dir, encoder.counted_from)
    return None


def _source_flags(cache_dir: Path, dataset: str) -> list[str]:
    """Say where a dataset is read from: as another of its sets was, else as its name says."""
    for stored in find(cache_dir, dataset=dataset):
        origin = recorded_origin(stored)
        if origin is not None:
            return origin.flags(dataset)
    if dataset not in SOURCES:  # a name that somebody gave
        return ["--dataset", "folder", "--data-dir", "FOLDER", "--name", dataset]
    return ["--dataset", dataset, *(["--data-dir", "FOLDER"] if takes_data_dir(dataset) else [])]
