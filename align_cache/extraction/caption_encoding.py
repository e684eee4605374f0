"""Captions through a text encoder, or to token ids, into shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from align_cache.encoders.base import TextEncoder
from align_cache.encoders.tokens import TokenIds
from align_cache.extraction.encoding import Encoding, Job, Skipped, sample_range
from align_cache.progress import Bar
from align_cache.sources.base import CaptionSample
from align_cache.store import FeatureSetWriter
from align_cache.store.columns import encode_strings


def encode_captions(encoding: Encoding, job: Job) -> None:
    """Run one text encoder, shard by shard."""
    captions = encoding.source.captions
    ids = [caption.sample_id for caption in captions]
    encode_strings([caption.text for caption in captions], "text", ids)  # refused before a model is loaded
    with ExitStack() as stack:
        writer = encoding.writer(stack, job)
        encoder: TextEncoder | TokenIds | None = encoding.load(job, writer) if writer.missing else None
        start = time.perf_counter()
        if encoder is not None:
            total = sum(len(sample_range(writer, index)) for index in writer.missing)
            with encoding.progress(total, job.spec.name, "captions") as bar:
                for index in writer.missing:
                    rows = sample_range(writer, index)
                    _write_captions(
                        encoding, job, writer, encoder, index, captions[rows.start : rows.stop], bar
                    )
        encoding.finish(job, writer, time.perf_counter() - start)


def _write_captions(
    encoding: Encoding,
    job: Job,
    writer: FeatureSetWriter,
    encoder: TextEncoder | TokenIds,
    index: int,
    captions: Sequence[CaptionSample],
    bar: Bar,
) -> None:
    skipped: Skipped = []
    if isinstance(encoder, TokenIds):
        with job.stages.timing("tokenize"):
            rows, truncated = encoder.encode([caption.text for caption in captions])
        kept = captions
        bar.advance(len(captions))
    else:
        with job.stages.timing("model"):
            rows, kept, truncated = _encode_captions(encoding, encoder, captions, bar, skipped)
    with job.stages.timing("write"):
        writer.write_shard(
            index,
            features=rows,
            sample_id=[caption.sample_id for caption in kept],
            group_id=[caption.group_id for caption in kept],
            label=[caption.label for caption in kept],
            split=[caption.split for caption in kept],
            text=[caption.text for caption in kept],
            skipped=skipped,
            counts={"truncated": truncated, "empty": sum(not caption.text.strip() for caption in kept)},
        )
    job.samples_done += len(kept)


def _encode_captions(
    encoding: Encoding, encoder: TextEncoder, captions: Sequence[CaptionSample], bar: Bar, skipped: Skipped
) -> tuple[NDArray[Any], Sequence[CaptionSample], int]:
    """Give unit-norm features, the captions they are of, and how many were cut."""
    done = 0

    def on_batch(count: int) -> None:
        nonlocal done
        bar.advance(count - done)
        done = count

    texts = [caption.text for caption in captions]
    raw, truncated = encoder.encode(texts, batch_size=encoding.batch_size, on_batch=on_batch)
    ids = [caption.sample_id for caption in captions]
    features, good = encoding.normalise(raw.numpy(), ids, encoder.spec.name, skipped)
    kept = [caption for caption, is_good in zip(captions, good, strict=True) if is_good]
    return features, kept, truncated
