"""The transformers models that have a name of their own, and what must be known of them without the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model of the table: where its weights are published, and its architecture, known without the hub."""

    repo_id: str
    """``owner/name[@revision]``."""
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any] | None = None


# OpenAI's repository holds its safetensors in the hub's conversion alone; its main branch has pickles.
_CLIP_B32 = "openai/clip-vit-base-patch32@refs/pr/15"
_CLIP_IMAGES = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
NAMED = {
    "distilbert": NamedModel(
        "distilbert/distilbert-base-uncased",
        {"model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072,
         "max_position_embeddings": 512, "vocab_size": 30522},
    ),
    "bert": NamedModel(
        "google-bert/bert-base-uncased",
        {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
         "intermediate_size": 3072, "max_position_embeddings": 512, "vocab_size": 30522},
    ),
    "dinov2": NamedModel(
        "facebook/dinov2-base",
        {"model_type": "dinov2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
         "mlp_ratio": 4, "image_size": 518, "patch_size": 14},
        _IMAGENET | {"size": {"shortest_edge": 256}, "crop_size": 224, "resample": 3},
    ),
    "clip-vit-b32": NamedModel(
        _CLIP_B32,
        {"model_type": "clip_vision_model", "hidden_size": 768, "num_hidden_layers": 12,
         "num_attention_heads": 12, "intermediate_size": 3072, "image_size": 224, "patch_size": 32,
         "hidden_act": "quick_gelu", "projection_dim": 512},
        _CLIP_IMAGES | {"size": {"shortest_edge": 224}, "crop_size": 224, "resample": 3},
    ),
    "clip-text-b32": NamedModel(
        _CLIP_B32,
        {"model_type": "clip_text_model", "hidden_size": 512, "num_hidden_layers": 12,
         "num_attention_heads": 8, "intermediate_size": 2048, "max_position_embeddings": 77,
         "vocab_size": 49408, "hidden_act": "quick_gelu", "projection_dim": 512},
    ),
}  # fmt: skip
