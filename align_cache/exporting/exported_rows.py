"""Which rows are exported: of a split, of all a run's data, or of another dataset that its encoders saw."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align_cache.adapters.pair import Adapter, AdapterPair
from align_cache.errors import UsageError
from align_cache.exporting.embedded_table import Column, EmbeddedTable, Modality
from align_cache.judging.run_features import choose_split, open_run_features
from align_cache.pairing.embedding import FeatureRows
from align_cache.pairing.pairs import PairedFeatures, Pairs, Rows, join, split_pairs
from align_cache.probes.labelled import open_like
from align_cache.results import Run
from align_cache.settings import FitConfig, fit_config
from align_cache.splits import canonical_split
from align_cache.store import FeatureSet, find
from align_cache.store.reader import TextColumn

ALL = "all"
"""Every row, whatever its split."""
_IMAGE_COLUMNS: dict[TextColumn, str] = {"sample_id": "sample_id", "split": "split"}
_TEXT_COLUMNS: dict[TextColumn, str] = {"sample_id": "sample_id", "group_id": "group_id", "text": "caption"}
"""By the store's name, what an export calls them."""


@dataclass(frozen=True, slots=True, eq=False)
class ChosenRows:
    """Rows of a feature set, and what is known of them."""

    features: FeatureSet
    rows: Rows
    columns: Mapping[str, Column]


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What is exported of a dataset."""

    split: str
    """``all``: of every split."""
    image: ChosenRows
    text: ChosenRows | None
    """None where the run's text encoder has not seen the dataset."""
    notes: tuple[str, ...]

    def tables(self, pair: AdapterPair, *, dim: int, device: torch.device) -> list[EmbeddedTable]:
        """Make the rows ready to be embedded by ``pair``, which is on the device."""

        def table(modality: Modality, chosen: ChosenRows, adapter: Adapter) -> EmbeddedTable:
            features = FeatureRows(chosen.features, chosen.rows, device=device, where="mmap")
            return EmbeddedTable(modality, chosen.columns, adapter, features, chosen.rows, dim)

        image = table("image", self.image, pair.image)
        return [image] if self.text is None else [image, table("text", self.text, pair.text)]


def choose_rows(run: Run, *, cache_dir: Path, dataset: str | None, split: str | None) -> Chosen:
    """Choose what is exported.

    Parameters
    ----------
    dataset : str or None
        One that the run's encoders have seen; None: the run's own.
    split : str or None
        ``all`` for every row; None: test where there is one, else what validated, or all of another dataset.

    Raises
    ------
    AlignCacheError
        If features are missing or damaged, another encoder made them, or there is no such split.
    """
    trained = fit_config(file=run.folder / "config.toml")
    joined = open_run_features(run.info(), trained, cache_dir)
    if dataset not in (None, joined.image.dataset):
        return _of_another(cache_dir, dataset, joined, split)
    name, pairs = (ALL, joined.pairs) if split == ALL else choose_split(joined, trained, split)
    return _paired(joined, pairs, name, role=_roles(joined, trained))


def first_rows(run: Run, *, cache_dir: Path, limit: int) -> dict[str, Tensor]:
    """Return at most ``limit`` rows of what the run was trained on, by modality, on the CPU.

    Raises
    ------
    CacheError
        If the features are missing or damaged.
    """
    trained = fit_config(file=run.folder / "config.toml")
    joined = open_run_features(run.info(), trained, cache_dir)

    def head(features: FeatureSet) -> Tensor:
        rows = np.arange(min(limit, features.rows))
        return FeatureRows(features, rows, device=torch.device("cpu"), where="mmap").take(rows)

    return {"image": head(joined.image), "text": head(joined.text)}


def _of_another(cache_dir: Path, dataset: str, trained_on: PairedFeatures, split: str | None) -> Chosen:
    """Choose rows of a dataset that the run was not trained on: its captions, class prompts or neither."""
    notes: list[str] = []
    image = open_like(cache_dir, dataset, trained_on.image, None, notes)
    text = None
    if find(cache_dir, dataset=dataset, encoder=trained_on.text.encoder):
        text = open_like(cache_dir, dataset, trained_on.text, None, notes)
    else:
        notes.append(f"{trained_on.text.encoder} has not seen {dataset}: only its images are exported")
    if text is not None and text.labels is None:
        joined = join(image, text, None)
        name, images = _of_split(image, joined.splits, split)
        return _paired(joined, joined.pairs.subset(images), name, notes=(*notes, *joined.notes))
    splits = image.encoded("split")
    assert splits is not None  # every shard has the column
    name, images = _of_split(image, splits, split)
    prompts = None if text is None else ChosenRows(text, every := np.arange(text.rows), _text(text, every))
    return Chosen(name, ChosenRows(image, images, _image(image, images)), prompts, tuple(notes))


def _paired(
    joined: PairedFeatures,
    pairs: Pairs,
    split: str,
    *,
    role: NDArray[np.bytes_] | None = None,
    notes: tuple[str, ...] | None = None,
) -> Chosen:
    """Choose images with their captions, which stand in the order of the images and share their split."""
    image = _image(joined.image, pairs.image_rows)
    if role is not None:
        image["role"] = role[pairs.image_rows]
    owner = pairs.caption_image
    text = _text(joined.text, pairs.caption_rows)
    text |= {name: image[name][owner] for name in ("split", "role") if name in image}
    return Chosen(
        split,
        ChosenRows(joined.image, pairs.image_rows, image),
        ChosenRows(joined.text, pairs.caption_rows, text),
        joined.notes if notes is None else notes,
    )


def _of_split(image: FeatureSet, splits: NDArray[np.bytes_], split: str | None) -> tuple[str, Rows]:
    """Return the split's name and the positions of its images; without one those of all images."""
    if split is None or split == ALL:
        return ALL, np.arange(len(splits))
    wanted = canonical_split(split)
    images = np.flatnonzero(splits == wanted.encode("utf-8"))
    if not len(images):
        known = ", ".join(bytes(name).decode("utf-8") for name in np.unique(splits) if name) or "none"
        raise UsageError(f"{image.dataset} has no {wanted} images; its splits: {known}")
    return wanted, images


def _roles(joined: PairedFeatures, trained: FitConfig) -> NDArray[np.bytes_]:
    """Say of each row of the image set what it was to the run: ``train``, ``val`` or nothing."""
    data = trained.data
    splits = split_pairs(
        joined,
        how=data.split,
        val_fraction=data.val_fraction,
        num_samples=data.num_samples,
        train_fraction=data.train_fraction,
        seed=trained.seed,
    )
    role = np.zeros(joined.image.rows, "S5")
    role[splits.train.image_rows], role[splits.val.image_rows] = b"train", b"val"
    return role


def _image(features: FeatureSet, rows: Rows) -> dict[str, Column]:
    return _known(features, rows, _IMAGE_COLUMNS)


def _text(features: FeatureSet, rows: Rows) -> dict[str, Column]:
    return _known(features, rows, _TEXT_COLUMNS)


def _known(features: FeatureSet, rows: Rows, names: Mapping[TextColumn, str]) -> dict[str, Column]:
    """Gather the columns that say something, and labels with their names."""
    columns: dict[str, Column] = {}
    for stored, name in names.items():
        column = features.encoded(stored)
        if column is not None and (column != b"").any():
            columns[name] = column[rows]
    if features.labels is not None:
        columns["label"] = features.labels[rows]
    if features.labels is not None and features.label_names:
        columns["label_name"] = np.strings.encode(np.array(features.label_names), "utf-8")[columns["label"]]
    return columns
