"""A source whose captions have noise on them."""

from dataclasses import replace

from align_cache.corruption import Noise
from align_cache.corruption.captions import corrupt_captions
from align_cache.sources.base import Source, captions_digest


def with_caption_noise(source: Source, noise: Noise | None) -> Source:
    """Return the same source with noise on its captions' texts; ids, groups, labels and splits stay.

    Raises
    ------
    UsageError
        As :func:`~align_cache.corruption.captions.corrupt_captions` does.
    """
    if noise is None:
        return source
    captions = source.captions
    texts = corrupt_captions(
        [caption.text for caption in captions],
        noise,
        sample_ids=[caption.sample_id for caption in captions],
        group_ids=[caption.group_id for caption in captions],
        digest=captions_digest(captions),
    )
    noisy = (replace(caption, text=text) for caption, text in zip(captions, texts, strict=True))
    return replace(source, captions=tuple(noisy))
