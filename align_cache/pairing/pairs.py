"""Which image goes with which captions: joined by id, split by image."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import PairingError
from align_cache.store import FeatureSet
from align_cache.store.matching import Ids, rows_of
from align_cache.store.reader import TextColumn

Rows = NDArray[np.int64]

_SPLIT_SEED = 0
"""The validation images of a dataset without any are the same in every run, whatever its seed."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """n images with their m captions, as rows of the feature sets.

    The captions of image i are ``caption_rows[caption_starts[i]:caption_starts[i + 1]]``, at least one.
    """

    ids: Ids
    """Of all rows of the image set, as UTF-8; every part of the pairs shares them."""
    image_rows: Rows
    caption_rows: Rows
    caption_starts: Rows
    reference_rows: Rows | None

    @property
    def n_images(self) -> int:
        """Images."""
        return len(self.image_rows)

    @property
    def n_captions(self) -> int:
        """Captions of all of them."""
        return len(self.caption_rows)

    @property
    def sample_ids(self) -> NDArray[np.str_]:
        """The images' ids, shape (n,), decoded at each call."""
        return np.strings.decode(self.ids[self.image_rows], "utf-8")

    @property
    def caption_counts(self) -> Rows:
        """Captions of each image, shape (n,)."""
        return np.diff(self.caption_starts)

    @property
    def caption_image(self) -> Rows:
        """For each caption the position of its image, 0 <= i < n, shape (m,)."""
        return np.repeat(np.arange(self.n_images), self.caption_counts)

    def subset(self, images: Rows) -> "Pairs":
        """Return some of the images, by position, in the order given."""
        counts = self.caption_counts[images]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self.caption_starts[images] - starts[:-1], counts)
        places += np.arange(starts[-1])
        reference = None if self.reference_rows is None else self.reference_rows[images]
        return Pairs(self.ids, self.image_rows[images], self.caption_rows[places], starts, reference)

    def with_first_captions(self) -> "Pairs":
        """Return all images, each with its first caption alone."""
        first = self.caption_rows[self.caption_starts[:-1]]
        starts = np.arange(self.n_images + 1)
        return Pairs(self.ids, self.image_rows, first, starts, self.reference_rows)


@dataclass(frozen=True, slots=True)
class PairedFeatures:
    """Feature sets of one dataset, joined."""

    image: FeatureSet
    text: FeatureSet
    reference: FeatureSet | None
    pairs: Pairs
    splits: NDArray[np.bytes_]
    """Split of each image, shape (n,); empty where the dataset has none."""
    notes: tuple[str, ...]

    def images_of(self, split: str) -> Rows:
        """Return the positions of the images of a split; of those without one, by an empty name."""
        return np.flatnonzero(self.splits == split.encode("utf-8"))

    def split_names(self) -> list[str]:
        """Return the splits that there are."""
        return [bytes(name).decode("utf-8") for name in np.unique(self.splits) if name]


def join(image: FeatureSet, text: FeatureSet, reference: FeatureSet | None) -> PairedFeatures:
    """Join by id: a caption's ``group_id`` is its image's ``sample_id``, and the reference has the same ids.

    Raises
    ------
    PairingError
        If the modalities are wrong or nothing matches; says how many ids each set has.
    """
    _check_modalities(image, text, reference)
    ids = _column(image, "sample_id")
    position = rows_of(_column(text, "group_id"), ids)
    notes = _orphans(int((position < 0).sum()), "captions", text, image)

    counts = np.bincount(position[position >= 0], minlength=image.rows)
    usable = counts > 0
    notes += _orphans(int((~usable).sum()), "images", image, text)
    reference_rows = None if reference is None else rows_of(ids, _column(reference, "sample_id"))
    if reference is not None and reference_rows is not None:
        notes += _orphans(int((usable & (reference_rows < 0)).sum()), "images", image, reference)
        usable &= reference_rows >= 0
    if not usable.any():
        others = f"{text.name} ({text.rows} captions)" + (f" and {reference.name}" if reference else "")
        hint = "the sets are of different data: extract them from one dataset"
        if text.labels is not None:
            hint = "class prompts are no captions; they are for: align-cache eval --zero-shot DATASET"
        raise PairingError(f"no image of {image.name} ({image.rows} images) is in {others}", hint=hint)

    by_image = np.argsort(position, kind="stable")[(position < 0).sum() :]
    starts = np.concatenate([[0], np.cumsum(counts)])
    pairs = Pairs(ids, np.arange(image.rows), by_image, starts, reference_rows)
    splits = _column(image, "split")
    notes += _split_conflicts(text, splits, position)
    if not usable.all():
        pairs, splits = pairs.subset(np.flatnonzero(usable)), splits[usable]
    return PairedFeatures(image, text, reference, pairs, splits, tuple(notes))


def _column(features: FeatureSet, column: TextColumn) -> Ids:
    """Return a column of text, empty where there is no row."""
    found = features.encoded(column)
    return np.empty(0, "S1") if found is None else found


@dataclass(frozen=True, slots=True)
class Splits:
    """The images that train, those that validate, and what was decided on the way."""

    train: Pairs
    val: Pairs
    notes: tuple[str, ...]


def split_pairs(
    joined: PairedFeatures,
    *,
    how: Literal["dataset", "fraction"],
    val_fraction: float,
    num_samples: int | None,
    seed: int,
    train_fraction: float | None = None,
) -> Splits:
    """Decide by image who trains and who validates; test images do neither.

    Parameters
    ----------
    how : {"dataset", "fraction"}
        Whether the dataset's own validation images validate or ``val_fraction`` of its training images.
    val_fraction : float in (0, 1)
    num_samples, train_fraction : int or None, float in (0, 1] or None
        Bounds on the training images, both where both are given. The first of a permutation drawn from
        ``seed`` train, so that a smaller subset lies inside a larger one of the same seed.
    seed : int

    Raises
    ------
    PairingError
        Fewer than 2 images would train or validate.
    """
    notes: list[str] = []
    train, val = joined.images_of("train"), joined.images_of("val")
    if not len(train):
        train = joined.images_of("")
    if how == "fraction" or not len(val):
        if how == "dataset":
            share = f"{100 * val_fraction:g}%"
            notes.append(f"the dataset names no validation images: {share} of its training images validate")
        shuffled = np.random.default_rng(_SPLIT_SEED).permutation(train)
        n_val = max(1, round(val_fraction * len(train)))
        val, train = np.sort(shuffled[:n_val]), np.sort(shuffled[n_val:])
    n, more = _n_train(len(train), train_fraction, num_samples)
    notes += more
    if n < len(train):
        train = np.sort(np.random.default_rng(seed).permutation(train)[:n])
    if len(train) < 2 or len(val) < 2:
        raise PairingError(
            f"{len(train)} images to train and {len(val)} to validate: at least 2 of each are needed"
        )
    return Splits(joined.pairs.subset(train), joined.pairs.subset(val), tuple(notes))


def _n_train(n: int, train_fraction: float | None, num_samples: int | None) -> tuple[int, list[str]]:
    """Return how many of n images train, and what is to be said about it."""
    kept, notes = n, []
    if train_fraction is not None:
        kept = round(train_fraction * n)
        notes.append(f"train_fraction = {train_fraction:g}: {kept:,} of {n:,} training images")
    if num_samples is None:
        return kept, notes
    if train_fraction is not None and num_samples < kept:
        notes.append(f"num_samples = {num_samples:,} bounds them further")
    if train_fraction is None and num_samples > n:
        notes.append(f"num_samples = {num_samples:,}, and all {n:,} training images are used")
    return min(kept, num_samples), notes


def _check_modalities(image: FeatureSet, text: FeatureSet, reference: FeatureSet | None) -> None:
    for features, expected in ((image, "image"), (text, "text"), (reference, "image")):
        if features is not None and features.modality != expected:
            raise PairingError(
                f"{features.name} holds {features.modality} features, expected {expected} features"
            )


def _orphans(count: int, what: str, of: FeatureSet, missing_in: FeatureSet) -> list[str]:
    return (
        [f"{count:,} {what} of {of.name} have no match in {missing_in.name} and are left out"]
        if count
        else []
    )


def _split_conflicts(text: FeatureSet, splits: NDArray[np.bytes_], position: Rows) -> list[str]:
    named = _column(text, "split")
    if not (named != b"").any():
        return []
    matched = position >= 0
    conflicts = int((named[matched] != splits[position[matched]]).sum())
    return (
        [f"{conflicts:,} captions name another split than their image: the image decides"]
        if conflicts
        else []
    )
