"""Stage 1: run frozen encoders over a dataset once and publish their features shard by shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from align_cache.encoders import resolve
from align_cache.encoders.base import EncoderRequest, EncoderSpec, Modality
from align_cache.encoders.fast_images import require_decoder
from align_cache.encoding import Encoding, Job
from align_cache.errors import SampleError, UsageError
from align_cache.progress import Progress, no_progress
from align_cache.runtime import keeping_freed_memory, resolve_device, torch_dtype
from align_cache.settings import ExtractConfig
from align_cache.shares import parse_share
from align_cache.sources import open_source
from align_cache.sources.base import Source, captions_digest, images_digest
from align_cache.sources.noisy import with_caption_noise
from align_cache.sources.prompts import PHOTO_TEMPLATES, class_prompts, read_templates
from align_cache.splits import canonical_split
from align_cache.store import is_complete
from align_cache.store.layout import FORMAT_VERSION, feature_set_folder, identity_key
from align_cache.store.manifest import Manifest
from align_cache.stored_captions import captions_source, open_captions
from align_cache.vocabulary import Vocabulary, own_vocabulary, stored_vocabulary


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
        One for each encoder, in the order asked for; without those of which ``config.shard_of`` leaves shards
        to other processes that are not there yet, which is noted.

    Raises
    ------
    AlignCacheError
        Before any model is loaded for whatever can be known by then. What was published before an
        interruption stays, and the same call goes on from there to the same bytes.
    """
    note = on_note or (lambda line: None)
    config, source, vocabulary, jobs = _plan(config, cache_dir)
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
            encoding.images([job for job in todo if job.spec.modality == "image"])
            for job in todo:
                if job.spec.modality == "text":
                    encoding.captions(job)
    return [
        _result(job, job.manifest, cache_dir, on_error=config.on_error)
        for job in jobs
        if job.manifest is not None
    ]


def feature_sets(config: ExtractConfig, cache_dir: Path) -> list[Job]:
    """Return the feature sets that ``config`` asks for, fully decided; nothing is loaded or made.

    Raises
    ------
    AlignCacheError
        As :func:`extract`.
    """
    *_, jobs = _plan(config, cache_dir)
    return jobs


def _plan(config: ExtractConfig, cache_dir: Path) -> tuple[ExtractConfig, Source, Vocabulary, list[Job]]:
    if config.captions_of is None:
        source = _with_prompts(config, _opened(config))
    else:
        config, source = _with_stored_captions(config, cache_dir)
    if config.vocabulary is None:
        vocabulary = own_vocabulary(source.captions)
    else:
        vocabulary = stored_vocabulary(cache_dir, config.vocabulary)
    return config, source, vocabulary, _jobs(config, source, vocabulary)


def _opened(config: ExtractConfig) -> Source:
    return open_source(
        config.dataset, data_dir=config.data_dir, revision=config.revision, options=config.options
    ).restricted(splits=config.split, limit=config.limit)


def _with_stored_captions(config: ExtractConfig, cache_dir: Path) -> tuple[ExtractConfig, Source]:
    """Take captions from the cache; with the set's full name, and the part of the dataset that it is.

    The same captions then have the same identity, whether they come from the dataset or from the cache.
    """
    assert config.captions_of is not None
    features = open_captions(cache_dir, config.captions_of, setting="captions_of")
    source, part = captions_source(features), features.manifest.structure.dataset
    config = config.model_copy(update={"captions_of": features.name})
    if source.prompted:
        return config, source
    if part.splits is None and part.limit is None:
        return config, source.restricted(splits=config.split, limit=config.limit)
    if config.split is not None or config.limit is not None:
        raise UsageError(
            f"{features.name} is a part of {features.dataset} itself (splits {part.splits}, limit "
            f"{part.limit}): its captions are taken as they are",
            hint="leave --split and --limit out",
        )
    return config.model_copy(update={"split": part.splits, "limit": part.limit}), source


def _with_prompts(config: ExtractConfig, source: Source) -> Source:
    """Put class prompts where a labelled dataset has no captions."""
    if source.captions or not source.label_names:
        if config.templates is not None:
            lacks = "captions of its own" if source.captions else "no class names"
            raise UsageError(f"templates are for the classes of a dataset, and {source.name} has {lacks}")
        return source
    given = config.templates
    templates = read_templates(given) if isinstance(given, Path) else given
    if templates is None:
        templates = source.templates or PHOTO_TEMPLATES
    return replace(source, captions=class_prompts(source.label_names, templates))


def _jobs(config: ExtractConfig, source: Source, vocabulary: Vocabulary) -> list[Job]:
    """Decide every encoder and every identity; nothing is loaded yet."""
    digests = {
        "image": images_digest(source.images, source.label_names),
        # Hashing takes a while where there are many captions: once is enough.
        "text": vocabulary.digest if config.vocabulary is None else captions_digest(source.captions),
    }
    jobs = []
    for name in config.encoders:
        request = EncoderRequest(
            name,
            weights=config.weights_of(name),
            tokenizer=config.tokenizer,
            pooling=config.pooling,
            max_length=config.max_length,
            resize=config.resize,
            decode=config.decode,
        )
        spec = resolve(request, captions_digest=vocabulary.digest)
        if spec.modality == "image" and config.captions_of is not None:
            raise UsageError(f"{name} encodes images, and {config.captions_of} gives captions alone",
                             hint="name text encoders: --encoder tokens, --encoder distilbert")  # fmt: skip
        if spec.modality == "text" and not source.captions:
            raise UsageError(
                f"{name} encodes text, and {source.name} has neither captions nor classes with names"
            )
        jobs.append(Job(spec, _identity(config, source, spec, digests[spec.modality])))
    _check_used(config, [job.spec for job in jobs])
    return jobs


def _check_used(config: ExtractConfig, specs: Sequence[EncoderSpec]) -> None:
    """Refuse what was set for encoders of another kind than these."""
    names = ", ".join(config.encoders)
    modalities = {spec.modality for spec in specs}
    if config.image_noise is not None and "image" not in modalities:
        raise UsageError(f"image noise is given, and none of {names} encodes images")
    if config.caption_noise is not None and "text" not in modalities:
        raise UsageError(f"caption noise is given, and none of {names} encodes text")
    if config.templates is not None and not any(spec.modality == "text" for spec in specs):
        raise UsageError(f"templates are given, and none of {names} encodes text")
    tokenizers = [spec.identity.get("tokenizer") or {} for spec in specs]
    if config.vocabulary is not None and not any("counted_from" in tokenizer for tokenizer in tokenizers):
        raise UsageError(f"vocabulary is given, and none of {names} counts one")


def _identity(config: ExtractConfig, source: Source, spec: EncoderSpec, digest: str) -> dict[str, Any]:
    """Put together what decides the features, as docs/cache-format.md lists it."""
    samples = source.images if spec.modality == "image" else source.captions
    # Prompts are the same whichever images are taken, and so are their features.
    whole = spec.modality == "text" and source.prompted
    noise = config.noise_of(spec.modality)
    return {
        "format": FORMAT_VERSION,
        "dataset": {
            "name": config.name or source.name,
            "revision": source.revision,
            "splits": None if whole else _splits(config),
            "limit": None if whole else config.limit,
            "samples": digest,
            "rows": len(samples),
        },
        "encoder": {"name": spec.name, "modality": spec.modality, **spec.identity},
        **_numbers(config, spec),
        "corruption": None if noise is None else noise.identity(),
    }


def _numbers(config: ExtractConfig, spec: EncoderSpec) -> dict[str, Any]:
    """Say how rows are computed and stored; token ids are what they are, however they come about."""
    if spec.gives == "tokens":
        return {
            "compute": {},
            "storage": {"dtype": "int32", "normalised": False, "shard_rows": config.shard_rows},
        }
    return {
        "compute": {"precision": config.precision, "batch_size": config.batch_size},
        "storage": {"dtype": config.dtype, "normalised": True, "shard_rows": config.shard_rows},
    }


def _splits(config: ExtractConfig) -> list[str] | None:
    return sorted({canonical_split(name) for name in config.split}) if config.split else None


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
