"""What a head is made of: one function for each kind, one registry.

``linear`` and ``mlp`` are those of the first document; ``residual`` and ``attention`` are made of the usual
pre-norm blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import nn

from align_cache.adapters.attention import MeanOfTokens, SelfAttention, Tokens
from align_cache.adapters.layers import Dropout, LayerNorm, Linear, Residual, RMSNorm, Standardize

Kind: TypeAlias = Literal["linear", "mlp", "residual", "attention"]
Layers: TypeAlias = list[nn.Module]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
_NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm}
_INPUT_NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": LayerNorm, "standardize": Standardize}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What all kinds are made with; a kind takes what it needs."""

    hidden_dims: Sequence[int] = ()
    """Hidden widths: of the mlp's layers, of each residual block, of each attention layer's feed-forward."""
    activation: Literal["gelu", "relu"] = "gelu"
    norm: Literal["layer", "rms"] | None = "layer"
    """Of the hidden layers and of the output."""
    input_norm: Literal["layer", "standardize"] | None = None
    """Of the features, before anything else."""
    dropout: float = 0.0
    attention_tokens: int = 8
    attention_width: int = 256
    """Components of a token."""
    attention_heads: int = 4

    def layers(self, kind: Kind, input_dim: int, embed_dim: int) -> Layers:
        """List the layers of one head, in order, with weights from torch's global generator."""
        first = [_INPUT_NORMS[self.input_norm](input_dim)] if self.input_norm is not None else []
        return [*first, *ARCHITECTURES[kind](self, input_dim, embed_dim)]

    def normed(self, width: int) -> Layers:
        """Give the normalisation of ``width`` components, or nothing."""
        return [] if self.norm is None else [_NORMS[self.norm](width)]

    def hidden(self, input_dim: int, width: int) -> Layers:
        """Give a layer and its activation."""
        return [Linear(input_dim, width), _ACTIVATIONS[self.activation]()]


def _linear(a: Architecture, input_dim: int, embed_dim: int) -> Layers:
    """Drop features before the only layer: the first document names a rate (0.15) and draws no dropout."""
    return [Dropout(a.dropout), Linear(input_dim, embed_dim), *a.normed(embed_dim)]


def _mlp(a: Architecture, input_dim: int, embed_dim: int) -> Layers:
    layers: Layers = []
    for width in a.hidden_dims:
        layers += [*a.hidden(input_dim, width), *a.normed(width), Dropout(a.dropout)]
        input_dim = width
    return [*layers, Linear(input_dim, embed_dim), *a.normed(embed_dim)]


def _residual(a: Architecture, input_dim: int, embed_dim: int) -> Layers:
    """Project to the embedding's width first; every block then adds to it."""
    blocks = [_feed_forward(a, embed_dim, width) for width in a.hidden_dims]
    return [Linear(input_dim, embed_dim), *blocks, *a.normed(embed_dim)]


def _attention(a: Architecture, input_dim: int, embed_dim: int) -> Layers:
    """Learn projections of the features as tokens: components have no order that groups could follow."""
    width, tokens = a.attention_width, a.attention_tokens
    layers: Layers = [Linear(input_dim, tokens * width), Tokens(tokens)]
    for hidden in a.hidden_dims:
        attention = SelfAttention(width, tokens=tokens, heads=a.attention_heads)
        layers += [Residual(*a.normed(width), attention), _feed_forward(a, width, hidden)]
    pooled = [*a.normed(width), MeanOfTokens(tokens)]
    return [*layers, *pooled, Linear(width, embed_dim), *a.normed(embed_dim)]


def _feed_forward(a: Architecture, width: int, hidden: int) -> nn.Module:
    return Residual(*a.normed(width), *a.hidden(width, hidden), Dropout(a.dropout), Linear(hidden, width))


ARCHITECTURES: dict[Kind, Callable[[Architecture, int, int], Layers]] = {
    "linear": _linear,
    "mlp": _mlp,
    "residual": _residual,
    "attention": _attention,
}
"""By kind: the layers between the features (input_dim) and the embeddings (embed_dim)."""
