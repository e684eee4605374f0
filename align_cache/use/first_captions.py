"""An image's first caption, where captions of its dataset are in the cache: a name that people can read."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from align_cache.store import FeatureSet, find
from align_cache.store.matching import Ids


class FirstCaptions:
    """The words of a dataset's captions, taken from its text feature set that has the most of them.

    Parameters
    ----------
    cache_dir : Path
    dataset : str

    Without such a set, or where its words are not stored, no image has a caption.
    """

    def __init__(self, cache_dir: Path, dataset: str) -> None:
        texts = [
            stored
            for stored in find(cache_dir, dataset=dataset)
            if stored.manifest.modality == "text" and stored.manifest.noise is None
        ]
        for stored in sorted(texts, key=lambda stored: -stored.manifest.rows):
            features = FeatureSet.open(stored.folder)
            if features.labels is None and features.encoded("text") is not None:  # no class prompts
                self._features: FeatureSet | None = features
                return
        self._features = None

    def of(self, image_ids: Iterable[str]) -> dict[str, str]:
        """Return the first caption of each image that has one."""
        if self._features is None:
            return {}
        wanted = np.strings.encode(np.array(sorted(set(image_ids)), dtype=np.str_), "utf-8")
        found: dict[str, str] = {}
        for row in np.flatnonzero(np.isin(self._groups, wanted)).tolist():
            image, caption = (self._features.words(column, row) for column in ("group_id", "text"))
            if image is not None and caption is not None:
                found.setdefault(image, caption)
        return found

    @cached_property
    def _groups(self) -> Ids:
        assert self._features is not None  # the caller looked
        groups = self._features.encoded("group_id")
        return np.empty(0, "S1") if groups is None else groups
