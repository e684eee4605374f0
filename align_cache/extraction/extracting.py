"""Stage 1: run frozen encoders over a dataset once and publish their features shard by shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from align_cache.encoders.base import Modality
from align_cache.encoders.fast_images import require_decoder
from align_cache.errors import SampleError
from align_cache.extraction.caption_encoding import encode_captions
from align_cache.extraction.encoding import Encoding, Job
from align_cache.extraction.image_encoding import encode_images
from align_cache.extraction.planning import plan
from align_cache.progress import Progress, no_progress
from align_cache.runtime import keeping_freed_memory, resolve_device, torch_dtype
from align_cache.settings import ExtractConfig
from align_cache.shares import parse_share
from align_cache.sources.noisy import with_caption_noise
from align_cache.store import is_complete
from align_cache.store.layout import feature_set_folder, identity_key
from align_cache.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Extracted:
    """One feature set after :func:`extract`."""

    name: str
    """For people: ``flickr8k/resnet18@1a2b3c4d``."""
    dataset: str
    encoder: str
    noise: str | None
    """On its inputs; None for clean ones."""
    key: str
    folder: Path
    rows: int
    dim: int
    width: str
    """The dim for people: ``512``, or ``64 tokens``."""
    untrained: bool
    status: Literal["extracted", "already there"]
    skipped: tuple[tuple[str, str], ...]
    """Id of each sample that was left out, and why."""
    counts: Mapping[str, int]
    seconds: float
    """Of this call, all encoders of its modality together; 0 where there was nothing to do."""
    samples_done: int
    """Samples encoded in this call; fewer than ``rows`` where it went on from an earlier one."""
    modality: Modality
    stages: Mapping[str, float]
    """Seconds by stage, as ``provenance.json`` has them; image encoders wait for images together."""


def extract(
    config: ExtractConfig,
    *,
    cache_dir: Path = Path("cache"),
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
        One for each encoder, in the order asked for; without those of which ``config.shard_of`` leaves shards
        to other processes that are not there yet, which is noted.

    Raises
    ------
    AlignCacheError
        Before any model is loaded for whatever can be known by then. What was published before an
        interruption stays, and the same call goes on from there to the same bytes.

    Examples
    --------
    >>> from align_cache import ExtractConfig, extract
    >>> drawn = {"dataset": "shapes", "options": {"count": 60}}
    >>> config = ExtractConfig(**drawn, encoders=("small-cnn", "small-text"), weights={"*": "random"})
    >>> for made in extract(config, cache_dir=Path("cache")):
    ...     print(made.encoder, made.rows, made.dim, made.status)
    small-cnn 60 384 extracted
    small-text 300 256 extracted
    """
    note = on_note or (lambda line: None)
    config, source, vocabulary, jobs = plan(config, cache_dir)
    for line in source.notes:
        note(line)
    if not config.overwrite:
        for job in jobs:
            job.manifest = is_complete(cache_dir, job.identity)
    todo = [job for job in jobs if job.manifest is None]
    if todo:
        if config.decode == "fast":
            require_decoder()
        encoding = Encoding(
            # Samples, vocabulary and identity are those of the clean captions.
            source=with_caption_noise(source, config.noise_of("text")),
            image_noise=config.noise_of("image"),
            origin=_origin(config),
            vocabulary=vocabulary.captions,
            cache_dir=cache_dir,
            device=resolve_device(config.device, local_rank=config.local_rank),
            dtype=torch_dtype(config.precision),
            batch_size=config.batch_size,
            workers=config.workers or os.cpu_count() or 1,
            on_error=config.on_error,
            overwrite=config.overwrite,
            share=None if config.shard_of is None else parse_share(config.shard_of),
            progress=progress or no_progress,
            note=note,
        )
        with keeping_freed_memory():
            encode_images(encoding, [job for job in todo if job.spec.modality == "image"])
            for job in todo:
                if job.spec.modality == "text":
                    encode_captions(encoding, job)
    return [
        _result(job, job.manifest, cache_dir, on_error=config.on_error)
        for job in jobs
        if job.manifest is not None
    ]


def _origin(config: ExtractConfig) -> dict[str, Any]:
    """Return how the source was opened, as provenance."""
    if config.captions_of is not None:
        return {"captions_of": config.captions_of}
    return {
        "name": config.dataset,
        "data_dir": None if config.data_dir is None else str(config.data_dir.resolve()),
        "options": config.options,
    }


def _result(job: Job, manifest: Manifest, cache_dir: Path, *, on_error: Literal["fail", "skip"]) -> Extracted:
    if manifest.skipped and on_error == "fail":
        sample_id, reason = manifest.skipped[0]
        raise SampleError(
            f"{manifest.name} lacks {len(manifest.skipped)} samples that were skipped, "
            f"the first {sample_id}: {reason}",
            hint="mend them, or accept it with --on-error skip",
        )
    return Extracted(
        name=manifest.name,
        dataset=manifest.dataset,
        encoder=manifest.encoder,
        noise=manifest.noise,
        key=identity_key(job.identity),
        folder=feature_set_folder(cache_dir, job.identity),
        rows=manifest.rows,
        dim=manifest.dim,
        width=manifest.width,
        untrained=manifest.untrained,
        status="extracted" if job.samples_done else "already there",
        skipped=tuple((sample_id, reason) for sample_id, reason in manifest.skipped),
        counts=dict(manifest.counts),
        seconds=job.seconds,
        samples_done=job.samples_done,
        modality=job.spec.modality,
        stages=dict(job.stages.seconds),
    )
