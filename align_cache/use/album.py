"""The pictures of a cached dataset, read again from where they were extracted: files, and small copies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from align_cache.sources.base import Source
from align_cache.store import find
from align_cache.use.pictures import recorded_pictures
from align_cache.use.small_pictures import thumbnails


@dataclass(frozen=True)
class Album:
    """Images by id. Made by :func:`open_album`."""

    source: Source | None
    """The dataset; None where it cannot be opened again."""
    reason: str | None
    """Why it cannot."""

    def file(self, image_id: str) -> Path | None:
        """Return where an image lies as a file of its own; None where it does not."""
        if self.source is None or self.source.root is None or image_id not in self._known:
            return None
        return self.source.root / image_id

    def small(self, image_ids: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return small pictures as data URLs by id, and what is wrong with those that are absent."""
        if self.source is None:
            return {}, (self.reason or "no pictures",)
        return thumbnails(self.source, set(image_ids))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset() if self.source is None else frozenset(i.sample_id for i in self.source.images)


def open_album(cache_dir: Path, dataset: str) -> Album:
    """Open the images of a cached dataset again: what any of its image sets was extracted from.

    Nothing is fetched, and a folder that holds other images by now is not used.

    Parameters
    ----------
    cache_dir : Path
    dataset : str
        Its name in the cache.

    Returns
    -------
    Album
    """
    reason: str | None = f"no image features of {dataset} are in the cache, to say where its images are"
    for stored in find(cache_dir, dataset=dataset):
        if stored.manifest.modality == "image" and stored.manifest.noise is None:
            source, reason = recorded_pictures(stored)
            if source is not None:
                return Album(source, None)
    return Album(None, reason)
