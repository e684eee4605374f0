"""What an untrained text encoder without a tokenizer counts its vocabulary from.

Its token ids, and so its features, depend on those captions: class prompts are read by the very encoder that
read a dataset's captions only if it counts the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from align_cache.errors import CacheError
from align_cache.extraction.stored_captions import open_captions
from align_cache.sources.base import CaptionSample, captions_digest
from align_cache.store import find


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Captions to count words in."""

    digest: str
    """Stands for them in an encoder's identity."""
    captions: Callable[[], Sequence[str]]


def own_vocabulary(captions: Sequence[CaptionSample]) -> Vocabulary:
    """Count the captions that are to be encoded."""
    return Vocabulary(captions_digest(captions), lambda: [caption.text for caption in captions])


def counted_set(cache_dir: Path, digest: str) -> str:
    """Name a text feature set of the captions that have a digest, as :func:`stored_vocabulary` takes it.

    Raises
    ------
    CacheError
        If there is none.
    """
    for stored in find(cache_dir):
        manifest = stored.manifest
        clean_text = manifest.modality == "text" and manifest.noise is None and not manifest.skipped
        if clean_text and manifest.structure.dataset.samples == digest:
            return f"{manifest.dataset}/{manifest.encoder}@{manifest.key}"
    raise CacheError(f"the captions that its vocabulary was counted from are not in {cache_dir}")


def stored_vocabulary(cache_dir: Path, name: str) -> Vocabulary:
    """Count the captions of a text feature set, ``dataset/encoder`` or ``dataset/encoder@key``.

    Raises
    ------
    CacheError
        If there is no such set, or several.
    UsageError
        If it does not hold every caption as it is.
    """
    features = open_captions(cache_dir, name, setting="vocabulary")
    assert features.texts is not None  # checked when it was opened
    return Vocabulary(features.manifest.structure.dataset.samples, features.texts.tolist)
