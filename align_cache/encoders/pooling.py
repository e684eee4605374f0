"""How the output of a transformers model becomes one vector: as everybody does it, or as the user says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align_cache.encoders.base import EncoderRequest
from align_cache.encoders.clip import TOWERS
from align_cache.errors import UsageError

POOLINGS = ("cls", "mean", "pooler", "projection")

# The kinds of model where everybody does it the same way. For others, users say.
_OWN_POOLING = {
    "cls": "albert bert beit camembert deberta deberta-v2 deit dinov2 dinov2_with_registers distilbert "
    "electra mpnet roberta vit vit_msn xlm-roberta",
    "pooler": "convnext convnextv2 efficientnet mobilenet_v1 mobilenet_v2 regnet resnet siglip_vision_model "
    "swin swinv2",
    "projection": " ".join(TOWERS.values()),
}


def decide_pooling(request: EncoderRequest, config: Mapping[str, Any]) -> str:
    """Return the pooling asked for, else that of the kind of model.

    Raises
    ------
    UsageError
        If none was asked for and the kind has none of its own, or the one asked for cannot be meant.
    """
    kind = config["model_type"]
    own = next((pooling for pooling, kinds in _OWN_POOLING.items() if kind in kinds.split()), None)
    pooling = request.pooling or own
    if pooling is None:
        raise UsageError(
            f"{request.name}: how the output of a {kind} model becomes one vector is not known",
            hint=f"pass --pooling with one of {', '.join(POOLINGS)}",
        )
    if pooling not in POOLINGS:
        raise UsageError(f"{request.name}: pooling {pooling!r} is none of {', '.join(POOLINGS)}")
    if pooling == "projection" and kind not in TOWERS.values():
        raise UsageError(f"{request.name}: a {kind} model has no projection", hint="leave --pooling out")
    if pooling == "cls" and kind == TOWERS["text"]:
        raise UsageError(
            f"{request.name} reads from left to right: its first token is the same for every text",
            hint="leave --pooling out",
        )
    return pooling
