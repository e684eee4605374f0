"""The manifest: what a finished feature set says about itself, and how that is checked."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from align_cache.errors import CacheError, CorruptError
from align_cache.files import is_plain_file
from align_cache.store.layout import (
    FORMAT_VERSION,
    KEY8_LENGTH,
    MANIFEST_NAME,
    IdentityModel,
    Strict,
    canonical_json,
    identity_key,
    one_line,
    parse_identity,
    shard_name,
)

MEND_HINT = (
    "`align-cache cache verify` lists all damage; the same extract or import again rebuilds what is damaged"
)


class ShardEntry(Strict):
    """One shard as the manifest knows it."""

    file: str
    rows: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(gt=0)]
    xxh3_128: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Manifest(Strict):
    """What a finished feature set holds. It follows from the identity and the shards alone.

    Dates, versions and durations are no part of it (they stand in ``provenance.json``), so that an
    interrupted and an uninterrupted extraction give the same bytes.
    """

    identity: dict[str, Any]
    dim: Annotated[int, Field(gt=0)]
    """Features in a row; of token ids the most that a row has room for."""
    rows: Annotated[int, Field(ge=0)]
    untrained: bool
    label_names: tuple[str, ...]
    shards: tuple[ShardEntry, ...]
    skipped: tuple[tuple[str, str], ...]
    """Samples that are not in the set, each with the reason, in the order of the dataset."""
    counts: dict[str, int]
    """What was counted on the way, summed over the shards (``truncated``, ``normalised``…)."""

    @cached_property
    def structure(self) -> IdentityModel:
        """The identity, typed."""
        return parse_identity(self.identity)

    @cached_property
    def key(self) -> str:
        """sha256 of the identity, hex."""
        return identity_key(self.identity)

    @property
    def key8(self) -> str:
        """The head of the key, as folders and tables show it."""
        return self.key[:KEY8_LENGTH]

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.structure.dataset.name

    @property
    def encoder(self) -> str:
        """The encoder's name."""
        return self.structure.encoder.name

    @property
    def noise(self) -> str | None:
        """The noise that the encoder's inputs had, ``blur:3``; None for clean ones."""
        corruption = self.structure.corruption
        return None if corruption is None else str(corruption.noise)

    @property
    def variant(self) -> str:
        """The encoder's name and the noise: ``resnet18``, ``resnet18+blur:3``."""
        return self.encoder if self.noise is None else f"{self.encoder}+{self.noise}"

    @property
    def modality(self) -> Literal["image", "text"]:
        """``image`` or ``text``."""
        return self.structure.encoder.modality

    @property
    def width(self) -> str:
        """What a row has, for people: ``512``, or ``64 tokens``."""
        return str(self.dim) if self.structure.tokens is None else f"{self.dim} tokens"

    @property
    def name(self) -> str:
        """The set's name for people: ``flickr8k/resnet18@1a2b3c4d``, ``…/resnet18+blur:3@5e6f7a8b``."""
        return f"{self.dataset}/{self.variant}@{self.key8}"

    def to_bytes(self) -> bytes:
        """Return the content of ``manifest.json``, the checksum of everything else included."""
        document = {"format": FORMAT_VERSION, "key": self.key, "modality": self.modality} | self.model_dump(
            mode="json"
        )
        document["sha256"] = hashlib.sha256(canonical_json(document)).hexdigest()
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read and check the content of a ``manifest.json``.

        Raises
        ------
        CorruptError
            If it is torn, edited, or contradicts itself.
        CacheError
            If a newer align-cache wrote it.
        """
        document = _parse_checked(data)
        stated = {name: document.pop(name, None) for name in ("format", "key", "modality")}
        try:
            manifest = cls.model_validate_json(canonical_json(document))
            found = {"format": FORMAT_VERSION, "key": manifest.key, "modality": manifest.modality}
            problem = _contradiction(manifest)
        except (ValidationError, CacheError) as error:
            raise CorruptError(f"the manifest has an unexpected structure: {one_line(error)}") from error
        if stated != found:
            raise CorruptError(f"the manifest says {stated}, its identity gives {found}")
        if problem:
            raise CorruptError(f"the manifest contradicts itself: {problem}")
        return manifest


def _parse_checked(data: bytes) -> dict[str, Any]:
    """Parse a manifest and hold it against its own checksum, which is taken out."""
    try:
        document = json.loads(data)
        version = document["format"]
        stated = document.pop("sha256")
        actual = hashlib.sha256(canonical_json(document)).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError("the manifest is torn or no manifest at all") from error
    if type(version) is int and version > FORMAT_VERSION:
        raise CacheError(
            f"the manifest has format {version}, this align-cache reads up to {FORMAT_VERSION}",
            hint="pip install --upgrade align-cache",
        )
    if stated != actual:
        raise CorruptError("the manifest was edited or damaged: its checksum does not fit its content")
    return dict(document)


def _contradiction(manifest: Manifest) -> str | None:
    """Say where the parts of a manifest do not fit each other; shard names admit no other path."""
    dataset, storage = manifest.structure.dataset, manifest.structure.storage
    wanted = -(-dataset.rows // storage.shard_rows)  # counted, not listed: a forged number may be of any size
    files = [entry.file for entry in manifest.shards]
    if len(files) != wanted or files != [shard_name(index) for index in range(wanted)]:
        return f"the identity asks for shards {shard_name(0)} to {shard_name(wanted - 1)}"
    if sum(entry.rows for entry in manifest.shards) != manifest.rows:
        return "the rows of the shards do not add up"
    if manifest.rows + len(manifest.skipped) != manifest.structure.dataset.rows:
        return "rows and skipped samples do not add up to the dataset"
    tokens = manifest.structure.tokens
    if tokens is not None and manifest.dim != tokens.max_length:
        return f"rows of {manifest.dim} token ids, and max_length is {tokens.max_length}"
    return None


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a finished feature set.

    Raises
    ------
    CorruptError
        If it is torn, edited, or a link.
    CacheError
        If there is none, or a newer align-cache wrote it.
    """
    path = folder / MANIFEST_NAME
    if not is_plain_file(path):
        if path.is_symlink() or path.exists():
            raise CorruptError(f"{path} is not a regular file")
        what = (
            "unfinished: it has no manifest" if folder.is_dir() else "no feature set: there is no such folder"
        )
        raise CacheError(f"{folder} is {what}", hint="run the same `align-cache extract` again to finish it")
    try:
        return Manifest.from_bytes(path.read_bytes())
    except CacheError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint or MEND_HINT) from error


def published_checksums(folder: Path, *, key: str) -> dict[str, str]:
    """Return the checksum of each shard by name, by the manifest of this very set; none without a sound one.

    A shard may fit its own checksum and yet be another than the one that was published.
    """
    try:
        manifest = read_manifest(folder)
    except (CacheError, OSError):  # torn, or another process has just removed it
        return {}
    return {entry.file: entry.xxh3_128 for entry in manifest.shards} if manifest.key == key else {}
