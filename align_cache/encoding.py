"""The part of an extraction that needs torch: samples through encoders into shards."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from align_cache.corruption import Noise
from align_cache.decoding import Decoder, PixelBatch
from align_cache.encoders import load
from align_cache.encoders.base import EncoderSpec, ImageEncoder, TextEncoder
from align_cache.encoders.tokens import TokenIds
from align_cache.errors import AlignCacheError, NonFiniteError
from align_cache.origin import request_record
from align_cache.progress import Bar, Progress
from align_cache.runtime import peak_memory_bytes, provenance
from align_cache.shares import Share
from align_cache.sources.base import CaptionSample, ImageSample, Source
from align_cache.stages import Stages
from align_cache.store import FeatureSetWriter
from align_cache.store.columns import encode_strings
from align_cache.store.layout import shard_slices
from align_cache.store.manifest import Manifest

if TYPE_CHECKING:
    import torch

Skipped = list[tuple[str, str]]
_BATCHES_IN_FLIGHT = 1
"""Batches that a GPU may still be at while the next is handed to it."""


@dataclass(slots=True)
class Job:
    """One feature set to make, and what came of it."""

    spec: EncoderSpec
    identity: dict[str, Any]
    manifest: Manifest | None = None
    """Of the finished set; None until it is."""
    seconds: float = 0.0
    """Of all encoders of its modality together."""
    samples_done: int = 0
    stages: Stages = field(default_factory=Stages)


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


@dataclass(frozen=True, slots=True)
class Encoding:
    """One extraction's device, source and manners; plain values, no config."""

    source: Source
    image_noise: Noise | None
    """Put on every prepared image; captions come with theirs."""
    origin: dict[str, Any]
    """How the source was opened, recorded so that its images can be shown again."""
    vocabulary: Callable[[], Sequence[str]]
    """Gives the captions that a vocabulary is counted from, where an encoder does so."""
    cache_dir: Path
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    workers: int
    on_error: Literal["fail", "skip"]
    overwrite: bool
    share: Share | None
    """The shards to make, while other processes make the others; None: all."""
    progress: Progress
    note: Callable[[str], None]

    def images(self, jobs: Sequence[Job]) -> None:
        """Feed every image encoder; each image is read and decoded once for all that lack its shard."""
        _check_strings(self.source.images)
        with ExitStack() as stack:
            writers = [self._writer(stack, job) for job in jobs]
            feeds = [
                _Feed(job, writer, self._load(job, writer))
                for job, writer in zip(jobs, writers, strict=True)
                if writer.missing
            ]
            start = time.perf_counter()
            if feeds:
                self._feed(feeds)
            for job, writer in zip(jobs, writers, strict=True):
                self._finish(job, writer, time.perf_counter() - start)

    def captions(self, job: Job) -> None:
        """Run one text encoder, shard by shard."""
        captions = self.source.captions
        ids = [caption.sample_id for caption in captions]
        encode_strings(
            [caption.text for caption in captions], "text", ids
        )  # refused before a model is loaded
        with ExitStack() as stack:
            writer = self._writer(stack, job)
            encoder: TextEncoder | TokenIds | None = self._load(job, writer) if writer.missing else None
            start = time.perf_counter()
            if encoder is not None:
                total = sum(len(_range(writer, index)) for index in writer.missing)
                with self.progress(total, job.spec.name, "captions") as bar:
                    for index in writer.missing:
                        rows = _range(writer, index)
                        self._write_captions(
                            job, writer, encoder, index, captions[rows.start : rows.stop], bar
                        )
            self._finish(job, writer, time.perf_counter() - start)

    def _writer(self, stack: ExitStack, job: Job) -> FeatureSetWriter:
        writer = FeatureSetWriter(
            self.cache_dir,
            job.identity,
            untrained=job.spec.untrained,
            label_names=self.source.label_names,
            overwrite=self.overwrite,
            shards=None if self.share is None else self.share.shards(len(shard_slices(job.identity))),
        )
        stack.enter_context(writer)
        for line in writer.notes:
            self.note(line)
        return writer

    def _load(self, job: Job, writer: FeatureSetWriter) -> Any:
        encoder = load(job.spec, device=self.device, dtype=self.dtype, captions=self.vocabulary)
        writer.check_space(encoder.dim)
        return encoder

    def _feed(self, feeds: Sequence[_Feed]) -> None:
        shards = sorted({index for feed in feeds for index in feed.writer.missing})
        total = sum(len(_range(feeds[0].writer, index)) for index in shards)
        preprocesses = [feed.job.spec.preprocess for feed in feeds if feed.job.spec.preprocess is not None]
        decoder = Decoder(
            self.source,
            preprocesses,
            workers=self.workers,
            batch_size=self.batch_size,
            noise=self.image_noise,
            pinned=self.device.type == "cuda",
        )
        names, waits = ", ".join(feed.job.spec.name for feed in feeds), Stages()
        with decoder, self.progress(total, names, "images") as bar:
            for index in shards:
                lacking = [(feed, _Collected()) for feed in feeds if index in feed.writer.missing]
                batches = decoder.batches(_range(feeds[0].writer, index))
                in_flight: deque[tuple[PixelBatch, list[torch.Tensor | None]]] = deque()
                for batch in waits.waiting("decode", batches):
                    in_flight.append((batch, [self._launch(feed, batch) for feed, _ in lacking]))
                    if len(in_flight) > _BATCHES_IN_FLIGHT:
                        self._land(*in_flight.popleft(), lacking, bar)
                while in_flight:
                    self._land(*in_flight.popleft(), lacking, bar)
                for feed, collected in lacking:
                    with feed.job.stages.timing("write"):
                        self._write_images(feed, index, collected)
        for feed in feeds:
            feed.job.stages.seconds = waits.seconds | feed.job.stages.seconds

    def _launch(self, feed: _Feed, batch: PixelBatch) -> torch.Tensor | None:
        """Hand a batch to an encoder; a GPU is then still at it."""
        preprocess = feed.job.spec.preprocess
        assert preprocess is not None  # every image encoder has one
        if not batch.rows:
            return None
        with feed.job.stages.timing("model"):
            return feed.encoder.encode(batch.on_device(preprocess, self.device))

    def _land(
        self,
        batch: PixelBatch,
        features: Sequence[torch.Tensor | None],
        lacking: Sequence[tuple[_Feed, _Collected]],
        bar: Bar,
    ) -> None:
        """Take what was launched from every encoder."""
        for (feed, collected), rows in zip(lacking, features, strict=True):
            with feed.job.stages.timing("model"):
                self._collect(feed, batch, rows, collected)
        bar.advance(len(batch.rows) + len(batch.failed))

    def _collect(
        self, feed: _Feed, batch: PixelBatch, encoded: torch.Tensor | None, into: _Collected
    ) -> None:
        for sample_id, error in batch.failed:
            self._skip_or_raise(sample_id, error, into.skipped)
        if encoded is None:
            return
        features = encoded.float().cpu().numpy()
        ids = [self.source.images[row].sample_id for row in batch.rows]
        unit_rows, good = self._normalise(features, ids, feed.job.spec.name, into.skipped)
        into.features.append(unit_rows)
        into.rows.extend(row for row, is_good in zip(batch.rows, good, strict=True) if is_good)

    def _write_images(self, feed: _Feed, index: int, collected: _Collected) -> None:
        images = [self.source.images[row] for row in collected.rows]
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

    def _write_captions(
        self,
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
                rows, kept, truncated = self._encode_captions(encoder, captions, bar, skipped)
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
        self, encoder: TextEncoder, captions: Sequence[CaptionSample], bar: Bar, skipped: Skipped
    ) -> tuple[NDArray[Any], Sequence[CaptionSample], int]:
        """Give unit-norm features, the captions they are of, and how many were cut."""
        done = 0

        def on_batch(count: int) -> None:
            nonlocal done
            bar.advance(count - done)
            done = count

        texts = [caption.text for caption in captions]
        raw, truncated = encoder.encode(texts, batch_size=self.batch_size, on_batch=on_batch)
        ids = [caption.sample_id for caption in captions]
        features, good = self._normalise(raw.numpy(), ids, encoder.spec.name, skipped)
        kept = [caption for caption, is_good in zip(captions, good, strict=True) if is_good]
        return features, kept, truncated

    def _normalise(
        self, features: NDArray[np.float32], ids: Sequence[str], encoder: str, skipped: Skipped
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scale rows to unit length; a row that has none stops the extraction or is left out."""
        # In float64, where no square of a float32 overflows or vanishes.
        norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        good = np.isfinite(features).all(axis=1) & (norms[:, 0] > 0)
        for row in np.flatnonzero(~good).tolist():
            what = "all zero" if norms[row, 0] == 0 else "not finite"
            error = NonFiniteError(
                f"{encoder} gives features that are {what} for {ids[row]}",
                hint="try --precision fp32, or --on-error skip",
            )
            self._skip_or_raise(ids[row], error, skipped)
        return (features[good] / norms[good]).astype(np.float32), good

    def _skip_or_raise(self, sample_id: str, error: AlignCacheError, skipped: Skipped) -> None:
        if self.on_error == "fail":
            raise error
        skipped.append((sample_id, error.message))

    def _finish(self, job: Job, writer: FeatureSetWriter, seconds: float) -> None:
        job.seconds = seconds
        record = {"device": str(self.device), "seconds": round(seconds, 3), "samples": job.samples_done}
        record |= {"source": self.origin, "encoder": request_record(job.spec.request)}
        record |= {"stages": {stage: round(spent, 3) for stage, spent in job.stages.seconds.items()}}
        record = {**provenance(), **record, "peak_memory_bytes": peak_memory_bytes()}
        if self.share is None:
            job.manifest = writer.finish(record)
            return
        job.manifest = writer.finish_if_last(record | {"shard_of": str(self.share)})
        for line in writer.notes:
            self.note(line)
        if job.manifest is None:
            self.note(_left_to_others(writer))


def _left_to_others(writer: FeatureSetWriter) -> str:
    name = f"{writer.folder.parent.name}/{writer.folder.name}"
    if absent := len(writer.absent()):
        count = len(writer.shard_slices)
        return f"{absent} of {count} shards of {name} are others'; the last to end publishes it"
    return f"every shard of {name} is there; another process is about to publish it"


def _check_strings(samples: Sequence[ImageSample] | Sequence[CaptionSample]) -> None:
    """Refuse ids and splits that cannot be stored, before a model is loaded."""
    ids = [sample.sample_id for sample in samples]
    encode_strings(ids, "sample_id", range(len(ids)), allow_empty=False)
    encode_strings([sample.split or "" for sample in samples], "split", ids)


def _range(writer: FeatureSetWriter, index: int) -> range:
    rows = writer.shard_slices[index]
    return range(rows.start, rows.stop)
