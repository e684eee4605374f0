"""Search: sentences and images in, the nearest images or captions of a cached dataset out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import UsageError
from align_cache.use.album import Album, open_album
from align_cache.use.candidates import Candidates, open_candidates
from align_cache.use.first_captions import FirstCaptions
from align_cache.use.found import Answer, Find, Found, Hit
from align_cache.use.nearest import Blocks, ExactIndex, FaissIndex, Index

if TYPE_CHECKING:
    from PIL.Image import Image

    from align_cache.use.model import AlignedModel

IndexName: TypeAlias = Literal["exact", "faiss"]
Query: TypeAlias = "str | Path | Image | NDArray[np.uint8]"
"""A sentence; or an image: its path, a PIL image, or uint8 RGB (height, width, 3)."""

_INDEXES: Mapping[IndexName, Callable[[Blocks], Index]] = {"exact": ExactIndex, "faiss": FaissIndex}


class Collection:
    """A dataset's images or captions, ready to be searched with a model again and again.

    Parameters
    ----------
    model : AlignedModel
    cache_dir : Path
    dataset : str, optional
        Its name in the cache; None: what the model was trained on.
    split : str, optional
        Its rows alone; None: all rows.
    find : {"images", "captions"}
    index : {"exact", "faiss"}
        ``exact`` reads the memory map at each search; ``faiss`` holds all embeddings in memory.

    Raises
    ------
    CacheError
        If the cache holds no features of the dataset by the model's own encoder; the hint is the command
        that makes them.
    UsageError
        If there is no such split; for faiss where it is not installed.
    """

    def __init__(
        self,
        model: AlignedModel,
        *,
        cache_dir: str | Path = Path("cache"),
        dataset: str | None = None,
        split: str | None = None,
        find: Find = "images",
        index: IndexName = "exact",
    ) -> None:
        self.model, self.find, self.split = model, find, split
        self._cache_dir = Path(cache_dir)
        self.dataset = model.config.data.dataset if dataset is None else dataset
        encoder = model.image_encoder if find == "images" else model.text_encoder
        self.candidates: Candidates = open_candidates(
            encoder, cache_dir=self._cache_dir, dataset=self.dataset, split=split
        )
        self._index = _INDEXES[index](partial(self.candidates.embeddings, model))

    def search(self, queries: Sequence[Query], *, k: int = 10) -> Found:
        """Find the k nearest candidates of each query; :func:`search` says what a query is."""
        _check(queries, k)
        nearest = self._index.nearest(_embed(self.model, queries), k=k)
        return Found(
            find=self.find,
            dataset=self.dataset,
            features=self.candidates.features.name,
            split=self.split,
            n_candidates=len(self.candidates.rows),
            model=self.model.source,
            untrained=untrained_encoders(self.model),
            notes=(*other_notes(self.model), *self.candidates.notes),
            answers=tuple(
                Answer(*_called(query, place), self._hits(rows, similarity))
                for place, (query, rows, similarity) in enumerate(
                    zip(queries, nearest.rows, nearest.similarity, strict=True)
                )
            ),
            album=self._album,
        )

    def _hits(self, rows: NDArray[np.int64], similarity: NDArray[np.float32]) -> tuple[Hit, ...]:
        features = self.candidates.features
        found = self.candidates.rows[rows]
        ids = [features.words("sample_id", row) or "" for row in found]
        if self.find == "images":
            images: list[str | None] = list(ids)
            first = self._first_captions.of(ids)
            captions = [first.get(image) for image in ids]
        else:
            prompts = features.labels is not None
            images = [None if prompts else features.words("group_id", row) for row in found]
            captions = [features.words("text", row) for row in found]
        return tuple(
            Hit(rank, float(cosine), sample_id, image, caption, self._file(image))
            for rank, (cosine, sample_id, image, caption) in enumerate(
                zip(similarity, ids, images, captions, strict=True), start=1
            )
        )

    def _file(self, image_id: str | None) -> Path | None:
        return None if image_id is None else self._album.file(image_id)

    @cached_property
    def _album(self) -> Album:
        return open_album(self._cache_dir, self.dataset)

    @cached_property
    def _first_captions(self) -> FirstCaptions:
        return FirstCaptions(self._cache_dir, self.dataset)


def search(
    model: AlignedModel,
    queries: Sequence[Query],
    *,
    cache_dir: str | Path = Path("cache"),
    dataset: str | None = None,
    split: str | None = None,
    find: Find | None = None,
    k: int = 10,
    index: IndexName = "exact",
) -> Found:
    """Find the images or captions of a cached dataset that lie nearest to sentences or images.

    Parameters
    ----------
    model : AlignedModel
    queries : sequence of str, Path, PIL image or uint8 array (height, width, 3)
        A ``str`` is a sentence; everything else is an image.
    cache_dir : Path
    dataset, split, index
        As :class:`Collection` takes them.
    find : {"images", "captions"}, optional
        None: what the queries are not: images for sentences, captions for images.
    k : int
        How many to find for each query; all where there are fewer.

    Returns
    -------
    Found
        Similarities are cosines, largest first; of equals the earlier row of the feature set.

    Raises
    ------
    UsageError
        If there is no query, an empty sentence, ``k`` below 1, or sentences and images at once without
        ``find``.
    SampleError
        If an image cannot be decoded.
    CacheError, EncoderError

    Cost O(n_queries · n · D) time; memory is that of a block of rows, whatever n is (``index="exact"``).

    Examples
    --------
    >>> from align_cache import AlignedModel, search
    >>> found = search(AlignedModel.from_run("latest"), ["a red circle"], k=3)
    >>> [answer.query for answer in found.answers]
    ['a red circle']
    >>> len(found.answers[0].hits), found.answers[0].hits[0].sample_id[:6]
    (3, 'scene-')
    """
    _check(queries, k)
    if find is None:
        kinds = {isinstance(query, str) for query in queries}
        if len(kinds) > 1:
            raise UsageError("sentences and images at once: say what they are to find",
                             hint="--find images, or --find captions")  # fmt: skip
        find = "images" if kinds == {True} else "captions"
    collection = Collection(model, cache_dir=cache_dir, dataset=dataset, split=split, find=find, index=index)
    return collection.search(queries, k=k)


def untrained_encoders(model: AlignedModel) -> tuple[str, ...]:
    """Name the encoders of a model that have random weights."""
    encoders = (model.image_encoder, model.text_encoder)
    return tuple(dict.fromkeys(encoder.name for encoder in encoders if encoder.untrained))


def other_notes(model: AlignedModel) -> tuple[str, ...]:
    """Return what is to be known of a model's encoders beside which are untrained, which is said apart."""
    encoders = (replace(each, untrained=False) for each in (model.image_encoder, model.text_encoder))
    return tuple(note for encoder in encoders for note in encoder.notes(model.device))


def _check(queries: Sequence[Query], k: int) -> None:
    if k < 1:
        raise UsageError(f"k is {k}; expected at least 1")
    if isinstance(queries, str | Path):
        raise UsageError("queries is one query, expected a list of them", hint="search(model, [query])")
    if not queries:
        raise UsageError(
            "nothing to search for", hint='a sentence: align-cache search "two dogs in the snow"'
        )
    for number, query in enumerate(queries):
        if isinstance(query, str) and not query.strip():
            raise UsageError(f"query {number} is an empty sentence")


def _embed(model: AlignedModel, queries: Sequence[Query]) -> NDArray[np.float32]:
    """Give unit-norm embeddings (n, D) of sentences and images in the order given."""
    embeddings = np.empty((len(queries), model.embed_dim), np.float32)
    sentences = {place: query for place, query in enumerate(queries) if isinstance(query, str)}
    images = {place: query for place, query in enumerate(queries) if not isinstance(query, str)}
    if sentences:
        embeddings[list(sentences)] = model.encode_text(list(sentences.values()))
    if images:
        embeddings[list(images)] = model.encode_image(list(images.values()))
    return embeddings


def _called(query: Query, place: int) -> tuple[str, bool]:
    """Return what a query is called, and whether it is an image."""
    return str(query) if isinstance(query, str | Path) else f"image {place}", not isinstance(query, str)
