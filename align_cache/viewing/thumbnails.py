"""Small pictures of a run's images, by id: read from the dataset when they are looked at."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from align_cache.errors import AlignCacheError, SampleError
from align_cache.results import Run
from align_cache.sources.base import Source
from align_cache.use.pictures import open_pictures
from align_cache.use.small_pictures import small_picture

KEPT = 2000
"""Small pictures in memory: some 20 MB."""


class Thumbnail(NamedTuple):
    """An encoded picture."""

    kind: str
    """``png`` or ``jpeg``."""
    content: bytes


class Thumbnails:
    """The pictures of one dataset. An id is looked up among its images, and is never a path.

    Attributes
    ----------
    available : bool
        Whether the dataset could be opened.
    note : str or None
        Where the pictures are from, or why there are none.
    get : callable (sample_id) -> Thumbnail or None
        None where the dataset has no such image, or it cannot be read.
    """

    def __init__(self, source: Source | None, note: str | None) -> None:
        self.available = source is not None
        self.note = note
        self._source = source
        self._rows = {image.sample_id: row for row, image in enumerate(source.images)} if source else {}
        self.get: Callable[[str], Thumbnail | None] = lru_cache(KEPT)(self._read)

    @classmethod
    def of(cls, run: Run, *, cache_dir: Path, dataset: str | None, data_dir: Path | None) -> Thumbnails:
        """Open the dataset that a run's images came from, or another that is named.

        What cannot be opened becomes the note: everything else can be looked at without pictures.
        """
        try:
            return cls(*open_pictures(run, cache_dir=cache_dir, dataset=dataset, data_dir=data_dir))
        except AlignCacheError as error:
            return cls(None, error.message)

    def _read(self, sample_id: str) -> Thumbnail | None:
        row = self._rows.get(sample_id)
        if self._source is None or row is None:
            return None
        try:
            return Thumbnail(*small_picture(self._source.read_image(row), sample_id))
        except SampleError:
            return None
