"""CLIP's two towers: one folder holds both, and each is an encoder of its own.

The feature of either is what CLIP itself compares: its pooled output times its projection. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from align_cache.encoders.base import EncoderSpec, Modality
from align_cache.encoders.tokenizer import Tokenizer
from align_cache.errors import EncoderError, UsageError

TOWERS: Mapping[Modality, str] = {"image": "clip_vision_model", "text": "clip_text_model"}
"""The ``model_type`` of each tower by itself."""
_PARTS: Mapping[Modality, str] = {"image": "vision_config", "text": "text_config"}
# What transformers takes where a tower's config is silent, of what is asked before it is loaded.
_DEFAULTS: Mapping[Modality, Mapping[str, Any]] = {
    "image": {"image_size": 224},
    "text": {"vocab_size": 49408, "max_position_embeddings": 77},
}
_HIGHEST_ID = 2
"""The ``eos_token_id`` of the first published configs. It is wrong, and transformers takes it to mean that a
text ends at its highest id."""


def split_tower(name: str) -> tuple[str, Modality | None]:
    """Split ``owner/name[@revision][:image | :text]`` into the repository and the tower; None: not named."""
    repository, _, tower = name.rpartition(":")
    return (repository, cast(Modality, tower)) if tower in TOWERS else (name, None)


def one_tower(config: Mapping[str, Any], tower: Modality | None, *, owner: str) -> Mapping[str, Any]:
    """Return the config of one tower of a CLIP model; any other config as it is.

    Parameters
    ----------
    config : mapping
        As in ``config.json``.
    tower : {"image", "text"}, optional
    owner : str
        Named in the error.

    Raises
    ------
    UsageError
        If the model has both towers and none was named.
    """
    if config["model_type"] != "clip":
        return config
    if tower is None:
        raise UsageError(
            f"{owner} is a clip model with two towers",
            hint=f"name one of them: {owner}:image or {owner}:text",
        )
    part = _PARTS[tower]
    # Old files repeat some values under a second name; transformers lets those win.
    given = {**(config.get(part) or {}), **(config.get(f"{part}_dict") or {})}
    own = {"model_type": TOWERS[tower], "projection_dim": config.get("projection_dim", 512)}
    return {**_DEFAULTS[tower], **given, **own}


def loaded_tower(config: Any, tower: Modality) -> Any:
    """Return one tower's part of a config that transformers has read; that of a single tower as it is."""
    if config.model_type != "clip":
        return config
    part = getattr(config, _PARTS[tower])
    # The whole model is projected to its own width; the towers' parts may still name the default.
    part.projection_dim = config.projection_dim
    return part


def match_end_token(spec: EncoderSpec, config: Any, tokenizer: Tokenizer) -> None:
    """See that texts end with the token at which the text tower reads its feature.

    An untrained tower takes the tokenizer's. A text without that token would be given the feature of its
    first one, which is the same for every text.

    Raises
    ------
    EncoderError
        If they differ.
    """
    end = tokenizer.encode([""])[0][0][-1:]
    if spec.untrained and end:
        config.eos_token_id = end[0]
    expected = tokenizer.size - 1 if config.eos_token_id == _HIGHEST_ID else config.eos_token_id
    if end != [expected]:
        raise EncoderError(
            f"{spec.name} reads a text's feature at token {expected}, and the tokenizer's texts end with "
            f"{end[0] if end else 'none of its own'}",
            hint="pass the model's own tokenizer with --tokenizer",
        )
