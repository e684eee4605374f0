"""What an extraction is to make, decided before anything is loaded: samples, encoders, identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from align_cache.encoders import resolve
from align_cache.encoders.base import EncoderRequest, EncoderSpec
from align_cache.errors import UsageError
from align_cache.extraction.encoding import Job
from align_cache.extraction.stored_captions import captions_source, open_captions
from align_cache.extraction.vocabulary import Vocabulary, own_vocabulary, stored_vocabulary
from align_cache.settings import ExtractConfig
from align_cache.sources import open_source
from align_cache.sources.base import Source, captions_digest, images_digest
from align_cache.sources.prompts import PHOTO_TEMPLATES, class_prompts, read_templates
from align_cache.splits import canonical_split
from align_cache.store.layout import FORMAT_VERSION


class Plan(NamedTuple):
    """One extraction, fully decided."""

    config: ExtractConfig
    """With the full name of the set that captions are taken from, and the part of its dataset that it is."""
    source: Source
    vocabulary: Vocabulary
    jobs: list[Job]
    """One for each encoder, in the order asked for."""


def plan(config: ExtractConfig, cache_dir: Path) -> Plan:
    """Decide every feature set that a config asks for; nothing is loaded or made.

    Raises
    ------
    AlignCacheError
        For whatever can be known by now.
    """
    if config.captions_of is None:
        source = _with_prompts(config, _opened(config))
    else:
        config, source = _with_stored_captions(config, cache_dir)
    if config.vocabulary is None:
        vocabulary = own_vocabulary(source.captions)
    else:
        vocabulary = stored_vocabulary(cache_dir, config.vocabulary)
    return Plan(config, source, vocabulary, _jobs(config, source, vocabulary))


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
