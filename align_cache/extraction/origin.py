"""How a feature set came about, read back from what was recorded of it: its source and its encoder.

What is recorded is never trusted: the source has to hold the very samples, and the encoder has to resolve to
the very identity, that the feature set's key stands for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_cache.encoders import resolve
from align_cache.encoders.base import EncoderRequest, EncoderSpec
from align_cache.encoders.weights import parse_weights
from align_cache.errors import AlignCacheError, CacheError, SourceError
from align_cache.sources import SOURCES, open_source, takes_data_dir
from align_cache.sources.base import Source, images_digest
from align_cache.store.catalog import StoredSet
from align_cache.store.layout import differences


def request_record(request: EncoderRequest) -> dict[str, Any]:
    """Return what provenance keeps of how an encoder was asked for; its name and length are in the key."""
    weights, tokenizer = parse_weights(request.weights).path, request.tokenizer
    return {
        "weights": request.weights if weights is None else str(weights.resolve()),
        "tokenizer": None if tokenizer is None else str(tokenizer.resolve()),
        "pooling": request.pooling,
        "resize": request.resize,
        "decode": request.decode,
    }


@dataclass(frozen=True, slots=True)
class Origin:
    """How a dataset was opened."""

    name: str
    """One of ``sources.SOURCES``."""
    data_dir: Path | None
    revision: str | None
    """Commit of the hub's copy; None of what lies on disk or is drawn."""
    options: dict[str, Any]

    @property
    def from_hub(self) -> bool:
        """Whether it was neither on disk nor drawn."""
        return self.revision is not None

    def flags(self, dataset: str) -> list[str]:
        """Return the options of ``align-cache extract`` that read it again, as a dataset of that name."""
        place = [] if self.data_dir is None else ["--data-dir", str(self.data_dir)]
        return ["--dataset", self.name, *place, *([] if self.name == dataset else ["--name", dataset])]

    def open(self) -> Source:
        """Open it again, as :func:`~align_cache.sources.open_source` does."""
        return open_source(self.name, data_dir=self.data_dir, revision=self.revision, options=self.options)


def recorded_origin(stored: StoredSet) -> Origin | None:
    """Return how the images were opened; None where that was not recorded, as of imported features."""
    record = (stored.provenance() or {}).get("source")
    if not isinstance(record, dict) or record.get("name") not in SOURCES:
        return None
    name, place = record["name"], record["data_dir"]
    from_hub = place is None and takes_data_dir(name)
    return Origin(
        name,
        None if place is None else Path(place),
        stored.manifest.structure.dataset.revision if from_hub else None,
        record["options"],
    )


def required_origin(stored: StoredSet) -> Origin:
    """Return the same, or raise CacheError."""
    origin = recorded_origin(stored)
    if origin is None:
        raise CacheError(f"{stored.manifest.name} does not say which data it was extracted from")
    return origin


def _holds_what_was_extracted(source: Source, stored: StoredSet) -> bool:
    """Hold a source against the identity: what is recorded of its place alone is not trusted."""
    identity = stored.manifest.structure.dataset
    part = source.restricted(splits=identity.splits, limit=identity.limit)
    digest = images_digest(part.images, part.label_names)
    return (source.revision, digest) == (identity.revision, identity.samples)


def reopen_source(stored: StoredSet, origin: Origin) -> Source:
    """Open what an image feature set was extracted from.

    Raises
    ------
    SourceError
        If it cannot be read, or holds something else by now.
    """
    source = origin.open()
    if not _holds_what_was_extracted(source, stored):
        place = origin.data_dir or origin.name
        raise SourceError(f"{place} no longer holds what was extracted as {stored.manifest.name}")
    return source


def recorded_request(stored: StoredSet) -> EncoderRequest:
    """Return the request that resolves to a feature set's very encoder.

    A set that records none is taken to have been asked for plainly: published or random weights.

    Raises
    ------
    CacheError
        If that resolves to another encoder, or what it needs is not there.
    """
    identity = stored.manifest.identity["encoder"]
    if identity.get("imported"):
        raise CacheError(f"{stored.manifest.name} was imported: nothing says what made it")
    recorded = (stored.provenance() or {}).get("encoder")
    request = request_of(identity, recorded)
    try:
        spec = resolve_as(identity, request)
    except AlignCacheError as error:
        if recorded is None:
            raise CacheError(
                f"{stored.manifest.name} does not say where its weights or its tokenizer lay"
            ) from None
        raise CacheError(f"its encoder cannot be had again: {error.message}") from None
    require_identity(spec, identity, stored.manifest.name)
    return request


def request_of(identity: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> EncoderRequest:
    """Return the request that an encoder's identity and :func:`request_record` tell of; nothing is looked up.

    Parameters
    ----------
    identity : mapping
        The ``encoder`` part of a feature set's identity.
    recorded : mapping or None
        None: it is taken to have been asked for plainly, with published or random weights.
    """
    return _request(identity, recorded or _plain_request(identity))


def resolve_as(identity: Mapping[str, Any], request: EncoderRequest) -> EncoderSpec:
    """Resolve a request as the encoder of an identity was; what comes of it may still be another encoder.

    Raises
    ------
    AlignCacheError
        As :func:`~align_cache.encoders.resolve`.
    """
    return resolve(request, captions_digest=(identity.get("tokenizer") or {}).get("counted_from"))


def require_identity(spec: EncoderSpec, identity: Mapping[str, Any], owner: str) -> None:
    """Raise CacheError unless a spec is the encoder of an identity, which ``owner`` has."""
    found = {"name": spec.name, "modality": spec.modality, **spec.identity}
    for path, wanted, other in differences(identity, found):
        raise CacheError(
            f"{spec.name} is another encoder by now: {path} is {other!r}, and {wanted!r} in {owner}"
        )


def _plain_request(identity: Mapping[str, Any]) -> dict[str, Any]:
    weights = str(identity.get("weights", ""))
    named = weights if weights.startswith("random:") else EncoderRequest(identity["name"]).weights
    return {"weights": named, "tokenizer": None, "pooling": None, "resize": "model"}


def _request(identity: Mapping[str, Any], recorded: Mapping[str, Any]) -> EncoderRequest:
    tokenizer = recorded["tokenizer"]
    return EncoderRequest(
        identity["name"],
        weights=recorded["weights"],
        tokenizer=None if tokenizer is None else Path(tokenizer),
        pooling=recorded["pooling"],
        resize=recorded["resize"],
        decode=recorded.get("decode", "model"),  # not recorded while there was one way
        **{name: identity[name] for name in ("max_length",) if name in identity},
    )
