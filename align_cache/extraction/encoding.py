"""What encoding images and encoding captions share: device, source, manners; how a set begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.corruption import Noise
from align_cache.encoders import load
from align_cache.encoders.base import EncoderSpec
from align_cache.errors import AlignCacheError, NonFiniteError
from align_cache.extraction.origin import request_record
from align_cache.extraction.stages import Stages
from align_cache.progress import Progress
from align_cache.runtime import peak_memory_bytes, provenance
from align_cache.shares import Share
from align_cache.sources.base import Source
from align_cache.store import FeatureSetWriter
from align_cache.store.columns import unit_rows
from align_cache.store.layout import shard_slices
from align_cache.store.manifest import Manifest

if TYPE_CHECKING:
    import torch

Skipped: TypeAlias = list[tuple[str, str]]
"""Id of each sample that was left out, and why."""


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

    def writer(self, stack: ExitStack, job: Job) -> FeatureSetWriter:
        """Begin a feature set, or go on with one; ``stack`` ends it."""
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

    def load(self, job: Job, writer: FeatureSetWriter) -> Any:
        """Load the encoder of a job, and make sure that the disk holds what it will give."""
        encoder = load(job.spec, device=self.device, dtype=self.dtype, captions=self.vocabulary)
        writer.check_space(encoder.dim)
        return encoder

    def normalise(
        self, features: NDArray[np.float32], ids: Sequence[str], encoder: str, skipped: Skipped
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scale rows to unit length; a row that has none stops the extraction or is left out."""
        scaled, good = unit_rows(features)
        for row in np.flatnonzero(~good).tolist():
            what = "not finite" if features[row].any() else "all zero"
            error = NonFiniteError(
                f"{encoder} gives features that are {what} for {ids[row]}",
                hint="try --precision fp32, or --on-error skip",
            )
            self.skip_or_raise(ids[row], error, skipped)
        return scaled, good

    def skip_or_raise(self, sample_id: str, error: AlignCacheError, skipped: Skipped) -> None:
        """Leave a sample out, or stop, as the user chose."""
        if self.on_error == "fail":
            raise error
        skipped.append((sample_id, error.message))

    def finish(self, job: Job, writer: FeatureSetWriter, seconds: float) -> None:
        """Publish the manifest if every shard is there, with what is recorded of this extraction."""
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


def sample_range(writer: FeatureSetWriter, index: int) -> range:
    """Return the samples of a shard."""
    rows = writer.shard_slices[index]
    return range(rows.start, rows.stop)
