"""Images through image encoders into shards; each image is read and decoded once for all of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from align_cache.encoders.base import ImageEncoder
from align_cache.extraction.decoding import Decoder, PixelBatch
from align_cache.extraction.encoding import Encoding, Job, Skipped, sample_range
from align_cache.extraction.stages import Stages
from align_cache.progress import Bar
from align_cache.sources.base import ImageSample
from align_cache.store import FeatureSetWriter
from align_cache.store.columns import encode_strings

if TYPE_CHECKING:
    import torch

_BATCHES_IN_FLIGHT = 1
"""Batches that a GPU may still be at while the next is handed to it."""


@dataclass(slots=True)
class _Collected:
    """What one encoder has of the shard that is being made."""

    features: list[NDArray[np.float32]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    skipped: Skipped = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Feed:
    """One image encoder at work: its job, its writer, its model."""

    job: Job
    writer: FeatureSetWriter
    encoder: ImageEncoder


def encode_images(encoding: Encoding, jobs: Sequence[Job]) -> None:
    """Feed every image encoder; each image is read and decoded once for all that lack its shard."""
    _check_strings(encoding.source.images)
    with ExitStack() as stack:
        writers = [encoding.writer(stack, job) for job in jobs]
        feeds = [
            _Feed(job, writer, encoding.load(job, writer))
            for job, writer in zip(jobs, writers, strict=True)
            if writer.missing
        ]
        start = time.perf_counter()
        if feeds:
            _feed(encoding, feeds)
        for job, writer in zip(jobs, writers, strict=True):
            encoding.finish(job, writer, time.perf_counter() - start)


def _feed(encoding: Encoding, feeds: Sequence[_Feed]) -> None:
    shards = sorted({index for feed in feeds for index in feed.writer.missing})
    total = sum(len(sample_range(feeds[0].writer, index)) for index in shards)
    preprocesses = [feed.job.spec.preprocess for feed in feeds if feed.job.spec.preprocess is not None]
    decoder = Decoder(
        encoding.source,
        preprocesses,
        workers=encoding.workers,
        batch_size=encoding.batch_size,
        noise=encoding.image_noise,
        pinned=encoding.device.type == "cuda",
    )
    names, waits = ", ".join(feed.job.spec.name for feed in feeds), Stages()
    with decoder, encoding.progress(total, names, "images") as bar:
        for index in shards:
            lacking = [(feed, _Collected()) for feed in feeds if index in feed.writer.missing]
            batches = decoder.batches(sample_range(feeds[0].writer, index))
            in_flight: deque[tuple[PixelBatch, list[torch.Tensor | None]]] = deque()
            for batch in waits.waiting("decode", batches):
                in_flight.append((batch, [_launch(encoding, feed, batch) for feed, _ in lacking]))
                if len(in_flight) > _BATCHES_IN_FLIGHT:
                    _land(encoding, *in_flight.popleft(), lacking, bar)
            while in_flight:
                _land(encoding, *in_flight.popleft(), lacking, bar)
            for feed, collected in lacking:
                with feed.job.stages.timing("write"):
                    _write_images(encoding, feed, index, collected)
    for feed in feeds:
        feed.job.stages.seconds = waits.seconds | feed.job.stages.seconds


def _launch(encoding: Encoding, feed: _Feed, batch: PixelBatch) -> torch.Tensor | None:
    """Hand a batch to an encoder; a GPU is then still at it."""
    preprocess = feed.job.spec.preprocess
    assert preprocess is not None  # every image encoder has one
    if not batch.rows:
        return None
    with feed.job.stages.timing("model"):
        return feed.encoder.encode(batch.on_device(preprocess, encoding.device))


def _land(
    encoding: Encoding,
    batch: PixelBatch,
    features: Sequence[torch.Tensor | None],
    lacking: Sequence[tuple[_Feed, _Collected]],
    bar: Bar,
) -> None:
    """Take what was launched from every encoder."""
    for (feed, collected), rows in zip(lacking, features, strict=True):
        with feed.job.stages.timing("model"):
            _collect(encoding, feed, batch, rows, collected)
    bar.advance(len(batch.rows) + len(batch.failed))


def _collect(
    encoding: Encoding, feed: _Feed, batch: PixelBatch, encoded: torch.Tensor | None, into: _Collected
) -> None:
    for sample_id, error in batch.failed:
        encoding.skip_or_raise(sample_id, error, into.skipped)
    if encoded is None:
        return
    features = encoded.float().cpu().numpy()
    ids = [encoding.source.images[row].sample_id for row in batch.rows]
    unit_rows, good = encoding.normalise(features, ids, feed.job.spec.name, into.skipped)
    into.features.append(unit_rows)
    into.rows.extend(row for row, is_good in zip(batch.rows, good, strict=True) if is_good)


def _write_images(encoding: Encoding, feed: _Feed, index: int, collected: _Collected) -> None:
    images = [encoding.source.images[row] for row in collected.rows]
    labels = [image.label for image in images]
    none_yet = np.zeros((0, feed.encoder.dim), dtype=np.float32)
    feed.writer.write_shard(
        index,
        features=np.concatenate([none_yet, *collected.features]),
        sample_id=[image.sample_id for image in images],
        label=None if all(label is None for label in labels) else labels,
        split=[image.split for image in images],
        skipped=collected.skipped,
    )
    feed.job.samples_done += len(images)


def _check_strings(images: Sequence[ImageSample]) -> None:
    """Refuse ids and splits that cannot be stored, before a model is loaded."""
    ids = [image.sample_id for image in images]
    encode_strings(ids, "sample_id", range(len(ids)), allow_empty=False)
    encode_strings([image.split or "" for image in images], "split", ids)
