"""``config.json`` of a saved model: its structure, written and read; a forged one is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from align_cache._version import __version__
from align_cache.errors import AlignCacheError, CacheError, CorruptError
from align_cache.extraction.origin import request_of
from align_cache.settings import FitConfig
from align_cache.store.layout import EncoderIdentity, Strict, one_line
from align_cache.use.known_encoder import KnownEncoder

FORMAT_VERSION = 1
VOCABULARY = "tokenizer.json"
"""A counted vocabulary, in the form of the tokenizers library."""

_Positive = Annotated[int, Field(gt=0, lt=2**31)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FileName = Annotated[str, Field(pattern=r"^[a-z_]+\.(json|txt|safetensors)$")]


class _ReadIdentity(EncoderIdentity):
    """What is read of an encoder's identity; all of it is compared with what its files give."""

    weights: str | None = None
    tokenizer: dict[str, Any] | None = None
    max_length: _Positive | None = None


def _readable(identity: dict[str, Any]) -> dict[str, Any]:
    _ReadIdentity.model_validate(identity)
    return identity


class _Request(Strict):
    """How an encoder was asked for, beside its name and length."""

    weights: str
    tokenizer: _FileName | None
    """A file of the folder."""
    pooling: str | None
    resize: Literal["model", "squash"]
    decode: Literal["model", "fast"]


class SavedEncoder(Strict):
    """A :class:`~align_cache.use.known_encoder.KnownEncoder` as JSON."""

    identity: Annotated[dict[str, Any], AfterValidator(_readable)]
    untrained: bool
    dim: _Positive
    dtype: Literal["float16", "float32", "int32"]
    precision: Literal["fp32", "bf16", "fp16"] | None
    noise: str | None
    request: _Request | None

    @classmethod
    def of(cls, known: KnownEncoder, *, tokenizer: str | None) -> SavedEncoder:
        """Describe an encoder whose tokenizer is the file of that name in the folder, or None of its own."""
        request = known.request
        return cls(
            identity=dict(known.identity),
            untrained=known.untrained,
            dim=known.dim,
            dtype=known.dtype,
            precision=known.precision,
            noise=known.noise,
            request=None
            if request is None
            else _Request(
                weights=request.weights,
                tokenizer=None if request.tokenizer is None else tokenizer,
                pooling=request.pooling,
                resize=request.resize,
                decode=request.decode,
            ),
        )

    def known(self, folder: Path) -> KnownEncoder:
        """Return the encoder, its tokenizer to be read from ``folder`` where that holds one."""
        counted = "counted_from" in (self.identity.get("tokenizer") or {})
        request = None
        if self.request is not None:
            recorded = self.request.model_dump()
            if self.request.tokenizer is not None:
                recorded["tokenizer"] = folder / self.request.tokenizer
            request = request_of(self.identity, recorded)
        return KnownEncoder(
            name=self.identity["name"],
            modality=self.identity["modality"],
            identity=self.identity,
            untrained=self.untrained,
            dim=self.dim,
            dtype=self.dtype,
            precision=self.precision,
            request=request,
            noise=self.noise,
            tokenizer_file=folder / VOCABULARY if counted else None,
        )


class SavedModel(Strict):
    """All of ``config.json``."""

    library: Literal["align-cache"] = "align-cache"
    format: Literal[1] = 1
    align_cache: str = __version__
    embed_dim: _Positive
    image: SavedEncoder
    text: SavedEncoder
    fit: dict[str, Any]
    """Every setting of the run."""
    files: dict[_FileName, _Sha256]

    def to_json(self) -> str:
        """Return the content of ``config.json``."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"

    def config(self) -> FitConfig:
        """Return the settings of the run."""
        return FitConfig.model_validate(self.fit)


def parse_saved(data: bytes) -> tuple[SavedModel, FitConfig]:
    """Read and check the content of a ``config.json``.

    Raises
    ------
    CorruptError
        If it is torn, of another structure, or contradicts itself.
    CacheError
        If a newer align-cache wrote it.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"it is no JSON: {error}") from None
    _refuse_newer(document)
    try:
        saved = SavedModel.model_validate_json(data)
        config = saved.config()
    except (ValidationError, AlignCacheError) as error:
        raise CorruptError(f"it has an unexpected structure: {one_line(error)}") from None
    if problem := _contradiction(saved, config):
        raise CorruptError(f"it contradicts itself: {problem}")
    return saved, config


def _refuse_newer(document: object) -> None:
    if not isinstance(document, Mapping) or document.get("library") != "align-cache":
        raise CorruptError(
            "it is not align-cache's", hint="name a folder that AlignedModel.save_pretrained left"
        )
    version = document.get("format")
    if type(version) is int and version > FORMAT_VERSION:
        raise CacheError(
            f"it has format {version}, this align-cache reads up to {FORMAT_VERSION}",
            hint="pip install --upgrade align-cache",
        )


def _contradiction(saved: SavedModel, config: FitConfig) -> str | None:
    image, text = saved.image, saved.text
    modalities = image.identity["modality"], text.identity["modality"]
    if modalities != ("image", "text"):
        return f"its encoders are of {' and '.join(modalities)}"
    if image.dtype == "int32":
        return "the image encoder gives token ids"
    if (text.dtype == "int32") != (config.adapter.text_type is not None):
        return f"text features are {text.dtype}, and adapter.text_type is {config.adapter.text_type}"
    for encoder in (image, text):
        name = None if encoder.request is None else encoder.request.tokenizer
        if name is not None and name not in saved.files:
            return f"{name} is not among its files"
    return None
