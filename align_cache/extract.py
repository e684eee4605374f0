"""Stage 1: run frozen encoders over a dataset once and publish their features shard by shard."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from align_cache.decoding import Decoder, PixelBatch
from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, EncoderSpec, ImageEncoder, TextEncoder
from align_cache.errors import AlignCacheError, NonFiniteError, UsageError
from align_cache.runtime import peak_memory_bytes, provenance, resolve_device, torch_dtype
from align_cache.settings import ExtractConfig
from align_cache.sources import open_source
from align_cache.sources.base import Source, captions_digest, images_digest
from align_cache.splits import canonical_split
from align_cache.store import FeatureSetWriter, is_complete
from align_cache.store.layout import FORMAT_VERSION, feature_set_folder, identity_key

if TYPE_CHECKING:
    import torch

Skipped = list[tuple[str, str]]


class Bar(Protocol):
    """A progress bar."""

    def advance(self, count: int = 1) -> None:
        """Add ``count`` to what is done."""


Progress = Callable[[int, str, str], AbstractContextManager[Bar]]
"""Makes a bar from a total, a description and a unit."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """One feature set after :func:`extract`."""

    dataset: str
    encoder: str
    key: str
    folder: Path
    rows: int
    dim: int
    untrained: bool
    status: Literal["extracted", "already there"]
    skipped: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    seconds: float
    """Of this call, all encoders of its modality together; 0 where there was nothing to do."""
    samples_done: int
    """Samples encoded in this call; fewer than ``rows`` where it went on from an earlier one."""


def extract(
    config: ExtractConfig,
    *,
    cache_dir: Path,
    progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[Extracted]:
    """Extract the features that ``config`` asks for and the cache does not hold yet.

    Parameters
    ----------
    config : ExtractConfig
    cache_dir : Path
        Features go to ``features/`` in it.
    progress : callable, optional
        Makes the progress bars.
    on_note : callable, optional
        Told once each what was repaired, counted or decided.

    Returns
    -------
    list of Extracted
        One for each encoder, in the order asked for.

    Raises
    ------
    AlignCacheError
        Before any model is loaded for whatever can be known by then. What was published before an
        interruption stays, and the same call goes on from there to the same bytes.
    """
    note = on_note or (lambda line: None)
    source = _open_source(config)
    jobs = [_Job(config, source, name, cache_dir) for name in config.encoders]
    for line in source.notes:
        note(line)
    todo = [job for job in jobs if config.overwrite or job.finished() is None]
    if todo:
        session = _Session(config, source, progress or _no_progress, note)
        images = [job for job in todo if job.spec.modality == "image"]
        if images:
            session.images(images, cache_dir)
        session.captions([job for job in todo if job.spec.modality == "text"], cache_dir)
    return [job.result() for job in jobs]


def _open_source(config: ExtractConfig) -> Source:
    opened = open_source(
        config.dataset, data_dir=config.data_dir, revision=config.revision, options=config.options
    )
    return opened.restricted(splits=config.split, limit=config.limit)


class _Job:
    """One feature set to make: its encoder's spec and its identity."""

    def __init__(self, config: ExtractConfig, source: Source, encoder: str, cache_dir: Path) -> None:
        request = EncoderRequest(
            encoder,
            weights=config.weights_of(encoder),
            tokenizer=config.tokenizer,
            pooling=config.pooling,
            max_length=config.max_length,
            resize=config.resize,
        )
        self.digest_of_captions = captions_digest(source.captions)
        self.spec: EncoderSpec = resolve(request, captions_digest=self.digest_of_captions)
        if self.spec.modality == "text" and not source.captions:
            raise UsageError(f"{encoder} encodes text, and {source.name} has no captions")
        self.identity = self._identity(config, source)
        self.cache_dir = cache_dir
        self.skipped: Skipped = []
        self.counts: dict[str, int] = {}
        self.seconds = 0.0
        self.samples_done = 0

    def _identity(self, config: ExtractConfig, source: Source) -> dict[str, Any]:
        is_image = self.spec.modality == "image"
        return {
            "format": FORMAT_VERSION,
            "dataset": {
                "name": config.name or source.name,
                "revision": source.revision,
                "splits": sorted({canonical_split(name) for name in config.split}) if config.split else None,
                "limit": config.limit,
                "samples": images_digest(source.images) if is_image else self.digest_of_captions,
                "rows": len(source.images) if is_image else len(source.captions),
            },
            "encoder": {"name": self.spec.name, "modality": self.spec.modality, **self.spec.identity},
            "compute": {"precision": config.precision, "batch_size": config.batch_size},
            "storage": {"dtype": config.dtype, "normalised": True, "shard_rows": config.shard_rows},
            "corruption": None,
        }

    def finished(self) -> Any:
        """Return the manifest if the set is whole."""
        return is_complete(self.cache_dir, self.identity)

    def result(self) -> Extracted:
        """Say what there is now."""
        manifest = self.finished()
        return Extracted(
            dataset=self.identity["dataset"]["name"],
            encoder=self.spec.name,
            key=identity_key(self.identity),
            folder=feature_set_folder(self.cache_dir, self.identity),
            rows=manifest.rows,
            dim=manifest.dim,
            untrained=manifest.untrained,
            status="extracted" if self.samples_done else "already there",
            skipped=tuple(manifest.skipped),
            counts=dict(manifest.counts),
            seconds=self.seconds,
            samples_done=self.samples_done,
        )


@dataclass(slots=True)
class _Collected:
    """What one encoder has of the shard that is being made."""

    features: list[NDArray[np.float32]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    skipped: Skipped = field(default_factory=list)


class _Session:
    """The part of an extraction that needs torch and a device."""

    def __init__(
        self, config: ExtractConfig, source: Source, progress: Progress, note: Callable[[str], None]
    ) -> None:
        self.config, self.source, self.progress, self.note = config, source, progress, note
        self.device = resolve_device(config.device)
        self.dtype = torch_dtype(config.precision)
        self.workers = config.workers or os.cpu_count() or 1

    def images(self, jobs: Sequence[_Job], cache_dir: Path) -> None:
        """Feed every image encoder; each image is read and decoded once for all that lack its shard."""
        with ExitStack() as stack:
            writers = self._writers(stack, jobs, cache_dir)
            encoders = [self._load(job, writer) for job, writer in zip(jobs, writers, strict=True)]
            start = time.perf_counter()
            shards = sorted({index for writer in writers for index in writer.missing})
            total = sum(_length(writers[0].shard_slices[index]) for index in shards) if shards else 0
            names = ", ".join(job.spec.name for job in jobs)
            with self._decoder(jobs) as decoder, self.progress(total, names, "images") as bar:
                for index in shards:
                    lacking = [i for i, writer in enumerate(writers) if index in writer.missing]
                    rows = _range(writers[0].shard_slices[index])
                    collected = {i: _Collected() for i in lacking}
                    for batch in decoder.batches(rows):
                        for i in lacking:
                            self._encode_images(jobs[i], encoders[i], batch, collected[i])
                        bar.advance(len(batch.rows) + len(batch.failed))
                    for i in lacking:
                        self._write_images(jobs[i], writers[i], encoders[i].dim, index, collected[i])
            self._finish(jobs, writers, time.perf_counter() - start)

    def captions(self, jobs: Sequence[_Job], cache_dir: Path) -> None:
        """Run the text encoders one after the other, shard by shard."""
        texts = [caption.text for caption in self.source.captions]
        for job in jobs:
            with ExitStack() as stack:
                (writer,) = self._writers(stack, [job], cache_dir)
                encoder = self._load(job, writer)
                start = time.perf_counter()
                total = sum(_length(writer.shard_slices[index]) for index in writer.missing)
                with self.progress(total, job.spec.name, "captions") as bar:
                    for index in writer.missing:
                        rows = _range(writer.shard_slices[index])
                        self._write_captions(job, writer, encoder, index, rows, texts, bar)
                self._finish([job], [writer], time.perf_counter() - start)

    def _writers(self, stack: ExitStack, jobs: Sequence[_Job], cache_dir: Path) -> list[FeatureSetWriter]:
        writers = [
            stack.enter_context(
                FeatureSetWriter(
                    cache_dir,
                    job.identity,
                    untrained=job.spec.untrained,
                    label_names=self.source.label_names,
                    overwrite=self.config.overwrite,
                )
            )
            for job in jobs
        ]
        for writer in writers:
            for line in writer.notes:
                self.note(line)
        return writers

    def _load(self, job: _Job, writer: FeatureSetWriter) -> Any:
        """Build the encoder, unless every shard is there and only the manifest is missing."""
        if not writer.missing:
            return None
        encoder = load(
            job.spec,
            device=self.device,
            dtype=self.dtype,
            captions=lambda: (caption.text for caption in self.source.captions),
        )
        writer.check_space(encoder.dim)
        return encoder

    def _decoder(self, jobs: Sequence[_Job]) -> Decoder:
        preprocesses = [job.spec.preprocess for job in jobs if job.spec.preprocess is not None]
        return Decoder(self.source, preprocesses, workers=self.workers, batch_size=self.config.batch_size)

    def _encode_images(self, job: _Job, encoder: ImageEncoder, batch: PixelBatch, into: _Collected) -> None:
        for sample_id, error in batch.failed:
            self._skip_or_raise(sample_id, error, into.skipped)
        if not batch.rows:
            return
        assert job.spec.preprocess is not None  # every image encoder has one
        pixels = _to_device(batch.pixels[job.spec.preprocess], self.device)
        features = encoder.encode(pixels).float().cpu().numpy()
        ids = [self.source.images[row].sample_id for row in batch.rows]
        unit_rows, good = self._normalise(features, ids, job.spec.name, into.skipped)
        into.features.append(unit_rows)
        into.rows.extend(row for row, is_good in zip(batch.rows, good, strict=True) if is_good)

    def _write_images(
        self, job: _Job, writer: FeatureSetWriter, dim: int, index: int, collected: _Collected
    ) -> None:
        images = [self.source.images[row] for row in collected.rows]
        labels = [image.label for image in images]
        splits = [image.split for image in images]
        empty = np.zeros((0, dim), dtype=np.float32)
        writer.write_shard(
            index,
            features=np.concatenate([empty, *collected.features]),
            sample_id=[image.sample_id for image in images],
            label=None if all(label is None for label in labels) else labels,
            split=None if all(split is None for split in splits) else splits,
            skipped=collected.skipped,
        )
        job.samples_done += len(images)

    def _write_captions(
        self,
        job: _Job,
        writer: FeatureSetWriter,
        encoder: TextEncoder,
        index: int,
        rows: range,
        texts: Sequence[str],
        bar: Bar,
    ) -> None:
        captions = self.source.captions[rows.start : rows.stop]
        done = 0

        def on_batch(count: int) -> None:
            nonlocal done
            bar.advance(count - done)
            done = count

        raw, truncated = encoder.encode(
            texts[rows.start : rows.stop], batch_size=self.config.batch_size, on_batch=on_batch
        )
        skipped: Skipped = []
        ids = [caption.sample_id for caption in captions]
        features, good = self._normalise(raw.numpy(), ids, job.spec.name, skipped)
        kept = [caption for caption, is_good in zip(captions, good, strict=True) if is_good]
        splits = [caption.split for caption in kept]
        writer.write_shard(
            index,
            features=features,
            sample_id=[caption.sample_id for caption in kept],
            group_id=[caption.group_id for caption in kept],
            split=None if all(split is None for split in splits) else splits,
            text=[caption.text for caption in kept],
            skipped=skipped,
            counts={"truncated": truncated, "empty": sum(not caption.text.strip() for caption in kept)},
        )
        job.samples_done += len(kept)

    def _normalise(
        self, features: NDArray[np.float32], ids: Sequence[str], encoder: str, skipped: Skipped
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scale rows to unit length; a row that has none stops the extraction or is left out."""
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        good = np.isfinite(features).all(axis=1) & (norms[:, 0] > 0)
        for row in np.flatnonzero(~good).tolist():
            what = "all zero" if norms[row, 0] == 0 else "not finite"
            error = NonFiniteError(
                f"{encoder} gives features that are {what} for {ids[row]}",
                hint="try --precision fp32, or --on-error skip",
            )
            self._skip_or_raise(ids[row], error, skipped)
        return features[good] / norms[good], good

    def _skip_or_raise(self, sample_id: str, error: AlignCacheError, skipped: Skipped) -> None:
        if self.config.on_error == "fail":
            raise error
        skipped.append((sample_id, error.message))

    def _finish(self, jobs: Sequence[_Job], writers: Sequence[FeatureSetWriter], seconds: float) -> None:
        for job, writer in zip(jobs, writers, strict=True):
            job.seconds = seconds
            writer.finish(
                {
                    **provenance(),
                    "device": str(self.device),
                    "seconds": round(seconds, 3),
                    "samples": job.samples_done,
                    "peak_memory_bytes": peak_memory_bytes(),
                    "data_dir": str(self.config.data_dir) if self.config.data_dir else None,
                }
            )


def _to_device(pixels: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    import torch

    batch = torch.from_numpy(pixels)
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)


def _range(rows: slice) -> range:
    return range(rows.start, rows.stop)


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


class _NoBar:
    def advance(self, count: int = 1) -> None:
        """Show nothing."""


def _no_progress(total: int, description: str, unit: str) -> AbstractContextManager[Bar]:
    return nullcontext(_NoBar())
