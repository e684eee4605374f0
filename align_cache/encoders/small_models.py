"""Three small random feature maps, never trained: what they keep of the input is by construction.

Weights are drawn so that every stage has values of about unit size: what a non-linearity then does to them is
neither nothing nor saturation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SmallCnn(nn.Module):
    """Which colours are where, what contours there are: 16 colours x 16 cells + 128 = 384 features.

    Colours are rectified random mixtures of the channels, averaged over a grid of cells. Contours are two
    layers of random filters, averaged over the picture: the same wherever the object is.
    """

    def __init__(self, *, colours: int = 16, cells: int = 4, edges: int = 32, contours: int = 128) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, colours, kernel_size=1)
        self.edges = nn.Conv2d(3, edges, kernel_size=5, stride=2, padding=2, bias=False)
        self.contours = nn.Conv2d(edges, contours, kernel_size=5, bias=False)
        self.cells = cells
        nn.init.normal_(self.colours.weight)
        nn.init.uniform_(self.get_parameter("colours.bias"), -1, 1)
        nn.init.orthogonal_(self.edges.weight)
        # A filter that sums to zero does not see a plain ground, only what stands on it.
        self.edges.weight.data -= self.edges.weight.data.mean((2, 3), keepdim=True)
        nn.init.normal_(self.contours.weight, std=(edges * 25) ** -0.5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give features (n, 384) of pixels (n, 3, 64, 64)."""
        where = functional.adaptive_avg_pool2d(functional.relu(self.colours(pixels)), self.cells)
        energy = functional.avg_pool2d(self.edges(pixels).abs(), 2)  # (n, edges, 16, 16)
        energy = energy - energy.mean(1, keepdim=True)
        what = functional.relu(self.contours(energy)).mean((2, 3))
        return torch.cat([where.flatten(1), what], dim=1)


class SmallVit(nn.Module):
    """Random patches, positions and one attention layer, squashed and averaged: 256 features."""

    def __init__(self, image_size: int, *, patch: int = 8, width: int = 128, dim: int = 256) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(torch.randn((image_size // patch) ** 2, width))
        self.attention = nn.MultiheadAttention(width, num_heads=4, batch_first=True)
        self.head = nn.Linear(width, dim)
        # Four times unit size: what is in a patch has to outweigh where the patch is.
        nn.init.normal_(self.patches.weight, std=4 * (3 * patch * patch) ** -0.5)
        nn.init.normal_(self.head.weight, std=width**-0.5)
        nn.init.normal_(self.head.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give features (n, 256) of pixels (n, 3, image_size, image_size)."""
        tokens = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions  # (n, patches, width)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        features: torch.Tensor = self.head(tokens).tanh().mean(1)
        return features


class SmallText(nn.Module):
    """Random functions of three neighbouring tokens, squashed and averaged over the text: 256 features."""

    def __init__(self, vocabulary: int, *, width: int = 128, dim: int = 256) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.context = nn.Conv1d(width, dim, kernel_size=3, padding=1)
        nn.init.normal_(self.context.weight, std=(3 * width) ** -0.5)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Give features (n, 256) of token ids and their mask, both (n, length); padding does not count."""
        weight = mask[:, None, :].to(self.embed.weight.dtype)  # (n, 1, length)
        responses = self.context(self.embed(ids).transpose(1, 2) * weight).tanh()  # (n, 256, length)
        features: torch.Tensor = (responses * weight).sum(2) / weight.sum(2)
        return features
