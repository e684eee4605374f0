"""The trained heads: one on each frozen encoder, both into one space."""

from collections.abc import Callable, Iterable
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

from align_cache.adapters.architectures import Architecture, Kind
from align_cache.adapters.layers import Standardize
from align_cache.adapters.text_towers import TextTower

LOG_TEMPERATURE_BOUNDS = (-4.6051702, 0.0)
"""ln 0.01 and ln 1: where a learned temperature is held."""


class Adapter(nn.Module):
    """One head: features (n, input_dim) → embeddings (n, embed_dim), not yet normalised.

    With a tower before it a head embeds token ids (n, length).
    """

    def __init__(
        self, layers: nn.Sequential, *, tower: TextTower | None = None, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.tower = tower
        self.layers = layers
        self.gradient_checkpointing = gradient_checkpointing

    def observe(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        """Let a head that standardises its input see the training features; another does not read them.

        Parameters
        ----------
        blocks : callable
            Gives float tensors (n, input_dim), together all training rows.
        """
        for layer in self.layers:
            if isinstance(layer, Standardize):
                layer.observe(blocks())

    def forward(self, features: Tensor, *, bf16: bool = False) -> Tensor:
        """Embed float32 features (n, input_dim), or token ids; products in bfloat16 or in float32."""
        if self.tower is not None:
            features = self.tower(features, bf16=bf16)
        if bf16:
            features = features.bfloat16()
        if self.gradient_checkpointing and self.training:
            recomputed: Tensor = checkpoint_sequential(  # type: ignore[no-untyped-call]
                self.layers, _segments(len(self.layers)), features, use_reentrant=False
            )
            return recomputed
        embeddings: Tensor = self.layers(features)
        return embeddings


class AdapterPair(nn.Module):
    """Both heads, and the temperature and bias of the similarities that they are trained with."""

    def __init__(
        self,
        image: Adapter,
        text: Adapter,
        *,
        temperature: float,
        learn_temperature: bool,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        self.image = image
        self.text = text
        # On the CPU: on the meta device, where weights are held against a config, torch would load its
        # compiler for a logarithm.
        log_temperature = torch.tensor(temperature, device="cpu").log()
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=learn_temperature)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))
        """Added to the similarities over the temperature, and learned; None: the loss knows none."""

    @property
    def temperature(self) -> Tensor:
        """The divisor of the similarities; held in bounds while it is learned."""
        if not self.log_temperature.requires_grad:
            return self.log_temperature.exp()
        low, high = LOG_TEMPERATURE_BOUNDS
        return self.log_temperature.clamp(low, high).exp()


def build_adapter(
    kind: Kind,
    input_dim: int,
    embed_dim: int,
    *,
    tower: TextTower | None = None,
    gradient_checkpointing: bool = False,
    **architecture: Any,
) -> Adapter:
    """Make one head; its weights come from torch's global generator.

    Parameters
    ----------
    kind : {"linear", "mlp", "residual", "attention"}
    input_dim, embed_dim : int
        Width of the features, or of what the tower gives, and of the shared space.
    tower : TextTower, optional
        What makes vectors of token ids first.
    **architecture
        Fields of :class:`~align_cache.adapters.architectures.Architecture`.
    """
    layers = Architecture(**architecture).layers(kind, input_dim, embed_dim)
    return Adapter(nn.Sequential(*layers), tower=tower, gradient_checkpointing=gradient_checkpointing)


def build_pair(
    kind: Kind,
    *,
    image_dim: int,
    text_dim: int,
    embed_dim: int,
    temperature: float,
    learn_temperature: bool = False,
    bias: float | None = None,
    text_tower: TextTower | None = None,
    **architecture: Any,
) -> AdapterPair:
    """Make both heads alike; ``architecture`` is what :func:`build_adapter` takes.

    With a tower, ``text_dim`` is its width, and ``input_norm``, which is of features, the image head's alone.
    """
    image = build_adapter(kind, image_dim, embed_dim, **architecture)
    of_text = architecture if text_tower is None else {**architecture, "input_norm": None}
    text = build_adapter(kind, text_dim, embed_dim, tower=text_tower, **of_text)
    return AdapterPair(image, text, temperature=temperature, learn_temperature=learn_temperature, bias=bias)


def _segments(n_layers: int) -> int:
    """Give about the square root of the depth: what is kept and what is recomputed at once are then alike."""
    return min(n_layers, max(2, isqrt(n_layers)))


def unit(rows: Tensor) -> Tensor:
    """Scale rows (…, dim) to unit length, in float32."""
    return F.normalize(rows.float(), dim=-1)


def fuse(image: Tensor, text: Tensor) -> Tensor:
    """Give the aligned embedding of each pair: the unit-norm mean of two unit-norm rows (n, dim)."""
    return unit(image + text)


def n_parameters(module: nn.Module) -> int:
    """Count what is trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
