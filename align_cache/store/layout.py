"""What decides a feature set and how it is called: identity, key, folder, shards.

The identity decides the content; its hash is the key; the key names the folder. See docs/cache-format.md.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from align_cache.corruption import MAX_SEVERITY, Noise
from align_cache.errors import CacheError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
PROVENANCE_NAME = "provenance.json"
KEY8_LENGTH = 8
PAD_ID = 0
"""What rows of token ids are filled up with; it stands for nothing else."""

Identity: TypeAlias = Mapping[str, Any]
"""What decides the content of a feature set, as JSON can hold it."""

_SLUG_LENGTH = 80


class Strict(BaseModel):
    """Frozen, nothing unknown, nothing converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DatasetIdentity(Strict):
    """The samples: which dataset, which part of it, in which order."""

    name: Annotated[str, Field(min_length=1)]
    revision: str
    splits: list[str] | None
    limit: int | None
    samples: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rows: Annotated[int, Field(gt=0)]


class EncoderIdentity(Strict):
    """The encoder; what else it says is its own business and part of the key."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(min_length=1)]
    modality: Literal["image", "text"]


class TokensIdentity(EncoderIdentity):
    """The encoder of a set that holds token ids: which ids there are, and how many a row has room for."""

    modality: Literal["text"]
    tokenizer: dict[str, Any]
    max_length: Annotated[int, Field(gt=0)]
    vocabulary_size: Annotated[int, Field(gt=PAD_ID + 1)]
    pad_id: Literal[0]


class StorageIdentity(Strict):
    """How the rows are stored: unit-norm features, or token ids as int32."""

    dtype: Literal["float16", "float32", "int32"]
    normalised: bool
    shard_rows: Annotated[int, Field(gt=0)]

    @model_validator(mode="after")
    def _features_are_normalised(self) -> "StorageIdentity":
        if self.normalised != (self.dtype != "int32"):
            raise ValueError(
                f"{self.dtype} with normalised {self.normalised}, expected unit-norm features as floats or "
                "token ids as int32, not normalised"
            )
        return self


class CorruptionIdentity(Strict):
    """The noise that was put on the samples before the encoder saw them."""

    kind: Annotated[str, Field(min_length=1)]
    severity: Annotated[int, Field(ge=1, le=MAX_SEVERITY)] | None = None
    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    version: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _one_level(self) -> "CorruptionIdentity":
        if (self.severity is None) == (self.rate is None):
            raise ValueError("a severity or a rate is needed, and not both")
        return self

    @property
    def noise(self) -> Noise:
        """The kind with its level."""
        level = self.rate if self.severity is None else self.severity
        assert level is not None  # one of them is there
        return Noise(self.kind, level)


class IdentityModel(Strict):
    """The structure that every identity has."""

    format: Literal[1]
    dataset: DatasetIdentity
    encoder: EncoderIdentity
    compute: dict[str, Any]
    storage: StorageIdentity
    corruption: CorruptionIdentity | None

    @cached_property
    def tokens(self) -> TokensIdentity | None:
        """The encoder of a set of token ids, checked when it is first asked for; None of features."""
        if self.storage.normalised:
            return None
        return TokensIdentity.model_validate(self.encoder.model_dump())


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def plain(value: object) -> Any:
    """Return a value as JSON gives it back (dicts, lists, str, int, float, bool, None); refuse the rest."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    raise CacheError(f"an identity holds JSON values only, found {type(value).__name__}: {value!r}")


def parse_identity(identity: Identity) -> IdentityModel:
    """Check the structure of an identity and return it typed.

    Raises
    ------
    CacheError
        If a part is missing, unknown or of the wrong type.
    """
    try:
        structure = IdentityModel.model_validate(plain(identity))
        _ = structure.tokens
        return structure
    except ValidationError as error:
        raise CacheError(f"not the identity of a feature set: {one_line(error)}") from error


def identity_key(identity: Identity) -> str:
    """Return the sha256 of the identity's canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(plain(identity))).hexdigest()


def slug(name: str) -> str:
    """Return a name as one folder: ``torchvision:mobilenet_v2`` gives ``torchvision-mobilenet_v2``.

    Different names may share a slug; the key in the folder's name tells their feature sets apart.

    Raises
    ------
    CacheError
        If nothing readable is left of the name.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_SLUG_LENGTH].strip("-.")
    if not readable:
        raise CacheError(f"{name!r} cannot name a folder: it needs a letter or a digit from ASCII")
    return readable


def feature_set_folder(cache_dir: Path, identity: Identity) -> Path:
    """Return ``<cache>/features/<dataset>/<encoder>-<key8>``."""
    structure, key = parse_identity(identity), identity_key(identity)
    encoder = f"{slug(structure.encoder.name)}-{key[:KEY8_LENGTH]}"
    return cache_dir / "features" / slug(structure.dataset.name) / encoder


def shard_name(index: int) -> str:
    """Return the file name of one shard."""
    return f"shard-{index:05d}.h5"


def shard_slices(identity: Identity) -> tuple[slice, ...]:
    """Return which rows of the dataset each shard covers; a function of the identity alone."""
    structure = parse_identity(identity)
    n_shards = -(-structure.dataset.rows // structure.storage.shard_rows)
    return tuple(shard_slice(structure, index) for index in range(n_shards))


def shard_slice(structure: IdentityModel, index: int) -> slice:
    """Return which rows of the dataset one shard covers."""
    rows, step = structure.dataset.rows, structure.storage.shard_rows
    return slice(index * step, min((index + 1) * step, rows))


def differences(identity_a: Identity, identity_b: Identity) -> list[tuple[str, Any, Any]]:
    """Return what differs between two identities, as (dotted path, value in a, value in b).

    A part that one of them lacks counts as None there.
    """
    a, b = dict(_leaves(identity_a)), dict(_leaves(identity_b))
    paths = sorted(a.keys() | b.keys())
    return [(path, a.get(path), b.get(path)) for path in paths if a.get(path) != b.get(path)]


def _leaves(value: Identity, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", plain(item)


def one_line(error: Exception) -> str:
    """Return every problem of a validation error in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    problems = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return "; ".join(problems)
