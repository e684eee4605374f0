"""What a search gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from align_cache.use.album import Album

Find: TypeAlias = Literal["images", "captions"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One image or caption that was found."""

    rank: int
    """1 is the nearest."""
    similarity: float
    """Cosine of the embeddings."""
    sample_id: str
    image_id: str | None
    """The image itself, or the one that the caption describes; None of a class prompt."""
    caption: str | None
    """The caption's words; an image's first caption where the cache has one."""
    file: Path | None
    """Where the image lies as a file of its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query found."""

    query: str
    """The sentence, or what the image is called."""
    is_image: bool
    hits: tuple[Hit, ...]
    """Nearest first."""

    @property
    def shown(self) -> str:
        """The query as tables are headed: a sentence stands in quotation marks."""
        return self.query if self.is_image else f"“{self.query}”"


@dataclass(frozen=True, slots=True)
class Found:
    """The answers to some queries, and where they were looked for."""

    find: Find
    dataset: str
    features: str
    """Name of the feature set that was searched."""
    split: str | None
    """None: all of it."""
    n_candidates: int
    model: str
    untrained: tuple[str, ...]
    """The model's encoders with random weights."""
    notes: tuple[str, ...]
    answers: tuple[Answer, ...]
    album: Album = field(repr=False)
    """The dataset's pictures."""

    def to_record(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        names = ("find", "dataset", "features", "split", "n_candidates", "model")
        record: dict[str, Any] = {name: getattr(self, name) for name in names}
        record |= {"untrained": list(self.untrained), "notes": list(self.notes)}
        return record | {"answers": [_answer_record(answer) for answer in self.answers]}


def _answer_record(answer: Answer) -> dict[str, Any]:
    hits = [{name: getattr(hit, name) for name in Hit.__slots__} for hit in answer.hits]
    for hit in hits:
        hit["file"] = None if hit["file"] is None else str(hit["file"])
    return {"query": answer.query, "is_image": answer.is_image, "hits": hits}
