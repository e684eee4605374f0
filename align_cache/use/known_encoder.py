"""What is known of an encoder whose features adapters were trained on, and how it is loaded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align_cache.encoders import load
from align_cache.encoders.base import Encoder, EncoderRequest, Modality
from align_cache.encoders.fast_images import require_decoder
from align_cache.errors import AlignCacheError, EncoderError, UsageError
from align_cache.extraction.origin import request_of, require_identity, resolve_as
from align_cache.extraction.vocabulary import counted_set, stored_vocabulary
from align_cache.runtime import Precision, fast_bf16, torch_dtype
from align_cache.store.catalog import StoredSet

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """One frozen encoder by its description; nothing is loaded."""

    name: str
    modality: Modality
    identity: Mapping[str, Any]
    """The ``encoder`` part of the identity of the feature set that the adapters were trained on."""
    untrained: bool
    dim: int
    """Components of its features; of token ids the most that a row has room for."""
    dtype: Literal["float16", "float32", "int32"]
    """What the features were stored as, and therefore what the adapters have seen."""
    precision: Precision | None
    """What the features were computed in; None of token ids and of imported features."""
    request: EncoderRequest | None
    """What resolves to this very encoder; None where its features were imported."""
    noise: str | None = None
    """What was put on the inputs that the adapters were trained on; what is encoded here has none."""
    captions: Callable[[], Iterable[str]] | None = None
    """Gives the captions that its vocabulary is counted from."""
    tokenizer_file: Path | None = None
    """The counted vocabulary as a ``tokenizer.json``, in place of the captions."""

    @property
    def holds_tokens(self) -> bool:
        """Whether it gives token ids."""
        return self.dtype == "int32"

    @property
    def weights_path(self) -> Path | None:
        """Where its weights lie, if they are a file or folder of the user's own."""
        return None if self.request is None else _own_path(self.request.weights)

    @property
    def counted_from(self) -> str | None:
        """Digest of the captions that its vocabulary was counted from; None where none was."""
        digest: str | None = (self.identity.get("tokenizer") or {}).get("counted_from")
        return digest

    def with_files(self, *, weights: str | None = None, tokenizer: Path | None = None) -> KnownEncoder:
        """Return the same encoder, its files to be read from elsewhere; None: from where they were.

        Raises
        ------
        EncoderError
            If its features were imported, so that there is nothing to read.
        """
        if weights is None and tokenizer is None:
            return self
        request = self.required_request()
        if weights is not None:
            path = _own_path(weights)
            request = replace(request, weights=weights if path is None else str(path.resolve()))
        if tokenizer is not None:
            request = replace(request, tokenizer=tokenizer)
        return replace(self, request=request)

    def required_request(self) -> EncoderRequest:
        """Return the request, or raise EncoderError where the features were imported."""
        if self.request is None:
            raise EncoderError(
                f"the {self.modality} features were imported as {self.name}: nothing says what made them",
                hint=f"compute them as before and give them to embed_{self.modality}_features",
            )
        return self.request

    def load(self, device: torch.device) -> Encoder:
        """Build the frozen model.

        Raises
        ------
        EncoderError
            If it was imported, what it is made of cannot be had, or that is another encoder by now.
        """
        request = self.required_request()
        try:
            if request.decode == "fast" and self.modality == "image":
                require_decoder()
            spec = resolve_as(self.identity, request)
            require_identity(spec, self.identity, "this model")
            if self.tokenizer_file is not None:
                spec = replace(spec, files={**spec.files, "tokenizer": self.tokenizer_file})
            dtype = torch_dtype(self.precision or "fp32")
            encoder = load(spec, device=device, dtype=dtype, captions=self.captions)
        except AlignCacheError as error:
            raise EncoderError(
                f"the {self.modality} encoder {self.name} cannot be had again: {error.message}",
                hint=self._way_out(error),
            ) from error
        if encoder.dim != self.dim:
            found = f"{self.name} gives {encoder.dim} components"
            raise EncoderError(f"{found}, and the adapters read {self.dim}")
        return encoder

    def without_paths(self) -> KnownEncoder:
        """Return the same, of files of weights their names alone: what is published names no folders."""
        if self.request is None or self.weights_path is None:
            return self
        return replace(self, request=replace(self.request, weights=self.weights_path.name))

    def notes(self, device: torch.device) -> tuple[str, ...]:
        """Say what is to be known of it before it is used on a device."""
        notes = [f"the {self.modality} encoder {self.name} is untrained"] if self.untrained else []
        if self.noise is not None:
            notes.append(
                f"the adapters were trained on {self.modality} features with {self.noise}; what is encoded "
                "here has no noise"
            )
        if self.request is not None and self.precision == "bf16" and not fast_bf16(device):
            notes.append(
                f"{self.name} computes in bf16, as for the features that the adapters know, which this "
                f"{device.type} does slowly"
            )
        return tuple(notes)

    def _way_out(self, error: AlignCacheError) -> str | None:
        """Say how files that lie elsewhere are named."""
        weights, tokenizer = self.identity.get("weights"), self.identity.get("tokenizer") or {}
        ways = []
        if isinstance(weights, str) and weights.startswith("sha256:"):
            ways.append(f'weights={{"{self.modality}": PATH}} with the weights of {weights}')
        if "sha256" in tokenizer:
            ways.append(f"tokenizer=PATH with the tokenizer of sha256:{tokenizer['sha256']}")
        if not ways:
            return error.hint
        named = f"put its files back, or name them in Python: {', '.join(ways)}"
        return named if error.hint is None or self.weights_path is not None else f"{error.hint}; or {named}"


def with_files(
    image: KnownEncoder,
    text: KnownEncoder,
    *,
    weights: Mapping[str, str] | None,
    tokenizer: str | Path | None,
) -> tuple[KnownEncoder, KnownEncoder]:
    """Return both encoders with their files where a caller says that they lie.

    Raises
    ------
    UsageError
        If weights are given of anything but ``image`` and ``text``.
    EncoderError
        If files are given of an encoder whose features were imported.
    """
    given = dict(weights or {})
    if unknown := sorted(given.keys() - {"image", "text"}):
        raise UsageError(f"weights of {', '.join(unknown)}, expected those of image or text")
    return (
        image.with_files(weights=given.get("image")),
        text.with_files(weights=given.get("text"), tokenizer=None if tokenizer is None else Path(tokenizer)),
    )


def _own_path(weights: str) -> Path | None:
    """Return where weights lie, if they are no published and no random ones; nothing is looked up."""
    named = weights.partition(":")[0] in ("pretrained", "random")
    return None if named else Path(weights).expanduser()


def encoder_of(stored: StoredSet, cache_dir: Path) -> KnownEncoder:
    """Read off a feature set what made it."""
    manifest = stored.manifest
    identity, structure = manifest.identity["encoder"], manifest.structure
    recorded = (stored.provenance() or {}).get("encoder")
    counted_from = (identity.get("tokenizer") or {}).get("counted_from")
    return KnownEncoder(
        name=manifest.encoder,
        modality=manifest.modality,
        identity=identity,
        untrained=manifest.untrained,
        dim=manifest.dim,
        dtype=structure.storage.dtype,
        precision=structure.compute.get("precision"),
        request=None if identity.get("imported") else request_of(identity, recorded),
        noise=manifest.noise,
        captions=None if counted_from is None else partial(_captions, cache_dir, counted_from),
    )


def _captions(cache_dir: Path, digest: str) -> Iterable[str]:
    return stored_vocabulary(cache_dir, counted_set(cache_dir, digest)).captions()
