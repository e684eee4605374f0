"""Frozen encoders: a name becomes a spec (``resolve``, cheap), a spec becomes a model (``load``).

Importing this package imports no torch; nor does resolving the named encoders, random weights and local
files, but for timm's models: an extraction that finds its work done ends at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from align_cache.encoders.base import Encoder, EncoderRequest, EncoderSpec
from align_cache.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["ENCODERS", "load", "missing_weights", "resolve"]

ENCODERS = {
    "resnet18": "image, 512: torchvision ResNet-18, global average pool",
    "dinov2": "image, 768: facebook/dinov2-base, CLS after the final norm",
    "distilbert": "text, 768: distilbert-base-uncased, CLS of the last layer",
    "bert": "text, 768: bert-base-uncased, CLS of the last layer",
    "clip-vit-b32": "image, 512: openai/clip-vit-base-patch32, projected as CLIP compares it",
    "clip-text-b32": "text, 512: the text tower of the same, projected",
    "small-cnn": "image, 384: random filters on 64 px, always untrained (the demo)",
    "small-vit": "image, 256: random transformer on 64 px, always untrained (the demo's reference)",
    "small-text": "text, 256: random embeddings of captions, always untrained (the demo)",
    "tokens": "text, 64 token ids: no model, for text towers that are trained from scratch",
    "torchvision:<name>": "image: any classification model of torchvision, the input of its classifier",
    "timm:<name>": "image: any model of timm, its own pooling",
    "hf:<owner>/<name>": "image or text: any transformers model with one tower, pooling by --pooling",
    "hf:<owner>/<name>:<tower>": "image or text: one tower of any CLIP in transformers' format",
}
"""Every name ``EncoderRequest.name`` can have, and what it is."""


def resolve(request: EncoderRequest, *, captions_digest: str | None = None) -> EncoderSpec:
    """Decide everything about an encoder without loading a model.

    Parameters
    ----------
    request : EncoderRequest
    captions_digest : str, optional
        Digest of the captions that a vocabulary would be counted from; needed by ``tokens`` and by an
        untrained text encoder where they are given no tokenizer.

    Returns
    -------
    EncoderSpec

    Raises
    ------
    UsageError
        For an unknown name, weights or a pooling that cannot be meant.
    EncoderError
        For files that are not this encoder's.
    OfflineError
        Within two seconds, where something must be fetched and there is no network.
    """
    from align_cache.encoders import hf, small, tokens, torchvision_
    from align_cache.encoders.named import NAMED

    family, _, model = request.name.partition(":")
    if request.name == "resnet18":
        return torchvision_.resolve(request, "resnet18")
    if request.name == "tokens":
        return tokens.resolve(request, captions_digest=captions_digest)
    if request.name in NAMED:
        return hf.resolve(request, None, captions_digest=captions_digest)
    if request.name in ENCODERS and request.name.startswith("small-"):
        return small.resolve(request, captions_digest=captions_digest)
    if family == "torchvision" and model:
        return torchvision_.resolve(request, model)
    if family == "hf" and model:
        return hf.resolve(request, model, captions_digest=captions_digest)
    if family == "timm" and model:
        from align_cache.encoders import timm_

        return timm_.resolve(request, model)
    near = get_close_matches(request.name, ENCODERS, n=1)
    raise UsageError(
        f"there is no encoder {request.name!r}",
        hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(ENCODERS)}",
    )


def missing_weights(name: str) -> str | None:
    """Return the command that fetches an encoder's published weights; None where none are missing.

    The hub is not asked. ``name`` is one of the table; of ``timm:<name>`` and the like nothing is said.
    """
    from align_cache.encoders import hf, torchvision_
    from align_cache.encoders.named import NAMED

    if name == "resnet18":
        return torchvision_.resnet18_fetch_command()
    return hf.fetch_command_for(name) if name in NAMED else None


def load(
    spec: EncoderSpec,
    *,
    device: torch.device,
    dtype: torch.dtype,
    captions: Callable[[], Iterable[str]] | None = None,
) -> Encoder:
    """Build the frozen model of a spec.

    Parameters
    ----------
    spec : EncoderSpec
        From :func:`resolve`, in this process or another with the same files.
    device : torch.device
    dtype : torch.dtype
        What the model computes in; features are float32 in any case.
    captions : callable, optional
        Gives the captions that ``captions_digest`` was made of; called only where a vocabulary is counted.

    Returns
    -------
    ImageEncoder or TextEncoder, by ``spec.modality``; TokenIds where ``spec.gives`` tokens.

    Raises
    ------
    EncoderError
        For weights that are damaged or fill only part of the model; names the tensors.
    """
    family = spec.name.partition(":")[0]
    if family == "tokens":
        from align_cache.encoders import tokens

        return tokens.load(spec, captions=captions)
    if family in ("resnet18", "torchvision"):
        from align_cache.encoders import torchvision_

        return torchvision_.load(spec, device=device, dtype=dtype)
    if family == "timm":
        from align_cache.encoders import timm_

        return timm_.load(spec, device=device, dtype=dtype)
    if family.startswith("small-"):
        from align_cache.encoders import small

        return small.load(spec, device=device, dtype=dtype, captions=captions)
    from align_cache.encoders import hf_model

    return hf_model.load(spec, device=device, dtype=dtype, captions=captions)
