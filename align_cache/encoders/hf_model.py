"""transformers models built: from a folder, every tensor accounted for, or from a config and a seed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from align_cache.encoders.base import Encoder, EncoderSpec
from align_cache.encoders.clip import TOWERS, loaded_tower, match_end_token
from align_cache.encoders.language import FrozenTextEncoder
from align_cache.encoders.named import NAMED
from align_cache.encoders.tokenizer import Tokenizer, load_tokenizer
from align_cache.encoders.vision import FrozenImageEncoder
from align_cache.encoders.weights import parse_weights, reason_of, refuse_partial, seeded
from align_cache.errors import EncoderError


def load(
    spec: EncoderSpec,
    *,
    device: torch.device,
    dtype: torch.dtype,
    captions: Callable[[], Iterable[str]] | None,
) -> Encoder:
    """Build the encoder of a spec from :func:`align_cache.encoders.hf.resolve`."""
    config = _config(spec)
    pooling = spec.identity["pooling"]
    if spec.modality == "image":
        image_model = _PooledImages(_network(spec, config, dtype), pooling)
        return FrozenImageEncoder(spec, image_model, device=device, dtype=dtype)
    tokenizer = load_tokenizer(spec.files.get("tokenizer"), captions, max_length=spec.request.max_length)
    _fit_vocabulary(spec, config, tokenizer)
    if config.model_type == TOWERS["text"]:
        match_end_token(spec, config, tokenizer)
    return FrozenTextEncoder(
        spec,
        _PooledText(_network(spec, config, dtype), pooling),
        tokenizer=tokenizer,
        pad_id=config.pad_token_id or 0,
        device=device,
        dtype=dtype,
    )


class _PooledImages(torch.nn.Module):
    """Pixels to features: CLS, mean of all tokens, the model's pooled output, that projected."""

    def __init__(self, network: torch.nn.Module, pooling: str) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        output = self.network(pixel_values=pixels)
        if self.pooling == "projection":
            projected: torch.Tensor = output.image_embeds
            return projected
        if self.pooling == "pooler":
            return _pooler_output(output).flatten(1)
        hidden: torch.Tensor = output.last_hidden_state
        if hidden.ndim == 4:
            raise EncoderError("a convolutional model has no tokens", hint="use --pooling pooler")
        return hidden[:, 0] if self.pooling == "cls" else hidden.mean(1)


class _PooledText(torch.nn.Module):
    """Ids and mask to features: CLS, mean of the real tokens, the model's pooled output, that projected."""

    def __init__(self, network: torch.nn.Module, pooling: str) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        output = self.network(input_ids=ids, attention_mask=mask)
        if self.pooling == "projection":
            projected: torch.Tensor = output.text_embeds
            return projected
        if self.pooling == "pooler":
            return _pooler_output(output)
        hidden: torch.Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        weight = mask[:, :, None].float()
        return (hidden.float() * weight).sum(1) / weight.sum(1)


def _pooler_output(output: Any) -> torch.Tensor:
    pooled: torch.Tensor | None = getattr(output, "pooler_output", None)
    if pooled is None:
        raise EncoderError("the model has no pooled output of its own", hint="use --pooling cls or mean")
    return pooled


def _config(spec: EncoderSpec) -> Any:
    from transformers import AutoConfig

    if "config" in spec.files:
        config = AutoConfig.from_pretrained(
            spec.files["config"].parent, local_files_only=True, trust_remote_code=False
        )
        return loaded_tower(config, spec.modality)
    return AutoConfig.for_model(**NAMED[spec.name].config)


def _fit_vocabulary(spec: EncoderSpec, config: Any, tokenizer: Tokenizer) -> None:
    """Give an untrained model as many embeddings as there are tokens; of a trained one, check the count."""
    if spec.untrained:
        config.vocab_size = tokenizer.size
    elif tokenizer.size > config.vocab_size:
        raise EncoderError(
            f"{spec.name}: the tokenizer has {tokenizer.size} tokens, the model {config.vocab_size}",
            hint="pass the model's own tokenizer with --tokenizer",
        )


def _network(spec: EncoderSpec, config: Any, dtype: torch.dtype) -> torch.nn.Module:
    seed, pooling = parse_weights(spec.request.weights).seed, spec.identity["pooling"]
    if seed is None:
        return _from_files(spec.files["weights"].parent, config, dtype, pooling=pooling)
    model_class = _model_class(config, pooling)
    # transformers' own way from a config to a model has another name where the class is not looked up.
    make = model_class._from_config if pooling == "projection" else model_class.from_config
    with seeded(seed):
        # Drawn in float32 whatever the model then computes in: one seed is one model.
        network: torch.nn.Module = make(config, dtype=torch.float32)
    return network


def _model_class(config: Any, pooling: str) -> Any:
    """Return the class of the bare model or, for a tower of CLIP that is projected, the one that does so."""
    import transformers

    if pooling != "projection":
        return transformers.AutoModel
    with_projection = {
        TOWERS["image"]: transformers.CLIPVisionModelWithProjection,
        TOWERS["text"]: transformers.CLIPTextModelWithProjection,
    }
    return with_projection[config.model_type]


def _from_files(folder: Path, config: Any, dtype: torch.dtype, *, pooling: str) -> torch.nn.Module:
    """Load a folder; refuse it if a needed tensor is missing or one of the trunk is left over."""
    with _quiet():
        try:
            network, report = _model_class(config, pooling).from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # the readers of each file format have errors of their own
            raise EncoderError(f"{folder} cannot be loaded: {reason_of(error)}") from error
    # In a file with both towers of CLIP, each has its kind for a prefix, whatever the class that reads it.
    prefixes = {network.base_model_prefix, config.model_type.removeprefix("clip_")}
    parts = {name for name, _ in network.named_children()} | prefixes
    missing = [key for key in report["missing_keys"] if pooling == "pooler" or not key.startswith("pooler.")]
    # Many published files hold a task's head too; a tensor left over in a part that the model has is no head.
    unexpected = [
        key
        for key in report["unexpected_keys"]
        if key.partition(".")[0] in parts and not key.endswith("position_ids")
    ]
    misshapen = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    refuse_partial(folder, missing=missing, unexpected=unexpected, misshapen=misshapen)
    loaded: torch.nn.Module = network
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and its report of tensors, which is judged here, for a while."""
    from transformers.utils import logging as their_logging

    verbosity, bars = their_logging.get_verbosity(), their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity(logging.ERROR)
    their_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # their code
    try:
        yield
    finally:
        their_logging.set_verbosity(verbosity)
        if bars:
            their_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # their code
