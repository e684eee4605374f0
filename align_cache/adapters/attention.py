"""Self-attention over the tokens that one feature vector is cut into.

Tokens stand in the rows: those of n vectors are rows (…, n · tokens, width), one vector's after another.
All other layers, and a leading run dimension, then work on them as on any rows.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from align_cache.adapters.layers import Linear


class Tokens(nn.Module):
    """Cut rows (…, n, tokens · width) into tokens (…, n · tokens, width)."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, rows: Tensor) -> Tensor:
        """Cut; consecutive components make a token."""
        *leading, n, width = rows.shape
        return rows.reshape(*leading, n * self.tokens, width // self.tokens)


class MeanOfTokens(nn.Module):
    """Average the tokens (…, n · tokens, width) of each vector: (…, n, width)."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, rows: Tensor) -> Tensor:
        """Average in the dtype of the rows."""
        *leading, n_tokens, width = rows.shape
        return rows.reshape(*leading, n_tokens // self.tokens, self.tokens, width).mean(-2)


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens of each vector, of rows (…, n · tokens, width)."""

    def __init__(self, width: int, *, tokens: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.heads = tokens, heads
        self.queries_keys_values = Linear(width, 3 * width)
        self.output = Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """Attend; a token sees those of its own vector and no others."""
        width = rows.shape[-1]
        joint = self.queries_keys_values(rows)
        by_head = joint.reshape(-1, self.tokens, 3, self.heads, width // self.heads)
        queries, keys, values = by_head.permute(2, 0, 3, 1, 4)  # each (vectors, heads, tokens, width / heads)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        mixed: Tensor = self.output(attended.transpose(1, 2).reshape(rows.shape))
        return mixed
