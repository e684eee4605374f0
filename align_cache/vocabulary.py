"""What an untrained text encoder without a tokenizer counts its vocabulary from.

Its token ids, and so its features, depend on those captions: class prompts are read by the very encoder that
read a dataset's captions only if it counts the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from align_cache.sources.base import CaptionSample, captions_digest
from align_cache.stored_captions import open_captions


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Captions to count words in."""

    digest: str
    """Stands for them in an encoder's identity."""
    captions: Callable[[], Sequence[str]]


def own_vocabulary(captions: Sequence[CaptionSample]) -> Vocabulary:
    """Count the captions that are to be encoded."""
    return Vocabulary(captions_digest(captions), lambda: [caption.text for caption in captions])


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
