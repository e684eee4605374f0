"""What a source is: images and captions with stable ids, and a way to read one image."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import SourceError, UsageError
from align_cache.splits import canonical_split

ImageData: TypeAlias = bytes | NDArray[np.uint8]
"""An image as its encoded file, or as decoded RGB, shape (height, width, 3)."""


@dataclass(frozen=True, slots=True)
class ImageSample:
    """One image: its id, and where they apply its label and split."""

    sample_id: str
    fingerprint: str
    """What stands for the content in the identity: a size, a checksum, a seed. Cheap to know."""
    label: int | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class CaptionSample:
    """One caption of one image, or one prompt of one class."""

    sample_id: str
    group_id: str
    """The ``sample_id`` of the image that the caption describes; the name of a prompt's class."""
    text: str
    split: str | None = None
    label: int | None = None
    """The class of a prompt; None for captions."""


@dataclass(frozen=True)
class Source:
    """A dataset as extraction sees it. Nothing is decoded until ``read_image`` is called.

    ``read_image`` takes an index into ``images``, is called from several threads, and raises
    :class:`~align_cache.errors.SampleError` for an image that cannot be read from its container.
    """

    name: str
    revision: str
    images: tuple[ImageSample, ...]
    captions: tuple[CaptionSample, ...]
    read_image: Callable[[int], ImageData]
    label_names: tuple[str, ...] = ()
    """Names of the labels 0, 1, …; empty where there are none."""
    notes: tuple[str, ...] = field(default=())
    """Repairs and oddities, to be said once to the user."""
    templates: tuple[str, ...] = ()
    """Sentences in the language of the dataset, ``{}`` for the class; empty: those for photographs."""
    root: Path | None = None
    """The folder below which each image is the file that its id names; None where images are no files."""

    @property
    def prompted(self) -> bool:
        """Whether ``captions`` are class prompts, which belong to no image, split or limit."""
        return bool(self.captions) and self.captions[0].label is not None

    def restricted(self, *, splits: Iterable[str] | None, limit: int | None) -> "Source":
        """Return the same source with only some splits and at most ``limit`` images, captions following.

        Raises
        ------
        UsageError
            If one of the splits has no images.
        """
        wanted = None if splits is None else frozenset(canonical_split(name) for name in splits)
        known = {image.split for image in self.images if image.split}
        if absent := sorted((wanted or frozenset()) - known):
            there = ", ".join(sorted(known)) or "none"
            raise UsageError(f"{self.name}: no images in split {', '.join(absent)}; its splits: {there}")
        rows = [i for i, image in enumerate(self.images) if wanted is None or image.split in wanted][:limit]
        if not rows:
            raise SourceError(f"{self.name} holds no images")
        if len(rows) == len(self.images):
            return self
        kept = {self.images[row].sample_id for row in rows}
        read = self.read_image
        return replace(
            self,
            images=tuple(self.images[row] for row in rows),
            captions=tuple(caption for caption in self.captions if caption.group_id in kept),
            read_image=lambda index: read(rows[index]),
        )


def images_digest(images: Iterable[ImageSample], label_names: Iterable[str] = ()) -> str:
    """sha256 over ids, order, content fingerprints, labels and their names, splits: part of an identity."""
    rows = ((s.sample_id, s.fingerprint, str(s.label), str(s.split)) for s in images)
    return _digest(chain(rows, [("label_names", *label_names)]))


def captions_digest(captions: Iterable[CaptionSample]) -> str:
    """sha256 over ids, order, groups, texts and splits: the content part of an identity.

    Labels need no place in it: prompts stand in the order of their classes.
    """
    return _digest((s.sample_id, s.group_id, s.text, str(s.split)) for s in captions)


def _digest(rows: Iterable[tuple[str, ...]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        for value in row:
            encoded = value.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    return digest.hexdigest()
