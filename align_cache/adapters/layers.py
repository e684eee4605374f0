"""The layers that adapters are made of; each also serves several runs that are trained together.

A layer's parameters may carry one more, leading dimension, the run: a weight (runs, out, in) then meets
rows (runs, n, in), and every run's result is what its own layer would have given. That is what
:mod:`.stacking` does; alone, a layer is the one of torch. Products follow the dtype of the rows: weights are
kept in float32 and cast where rows are bfloat16.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16
"""Steps of a dropout rate: four draws are made of one 64-bit number."""


class Linear(nn.Linear):
    """Rows (…, in) to (…, out)."""

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply in the dtype of the rows."""
        weight, bias = self.weight.to(rows.dtype), self.bias.to(rows.dtype)
        if weight.dim() == 2:
            return F.linear(rows, weight, bias)
        return torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last dimension, with a gain and a shift for each component."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise rows (…, width), in their dtype; sums are made in float32."""
        weight, bias = self.weight.to(rows.dtype), self.bias.to(rows.dtype)
        if weight.dim() == 1:
            return F.layer_norm(rows, self.normalized_shape, weight, bias, self.eps)
        plain = F.layer_norm(rows, self.normalized_shape, eps=self.eps)
        return torch.addcmul(bias.unsqueeze(1), plain, weight.unsqueeze(1))


class RMSNorm(nn.RMSNorm):
    """Division by the root mean square of the last dimension, with a gain for each component."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5)

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise rows (…, width), in their dtype; sums are made in float32."""
        weight = self.weight.to(rows.dtype)
        if weight.dim() == 1:
            return F.rms_norm(rows, self.normalized_shape, weight, self.eps)
        return F.rms_norm(rows, self.normalized_shape, eps=self.eps) * weight.unsqueeze(1)


class Standardize(nn.Module):
    """Bring each component to mean zero and deviation one by what was seen of the training rows."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @torch.no_grad()
    def observe(self, blocks: Iterable[Tensor]) -> None:
        """Take mean and deviation of rows, block after block of (n, width), in float64.

        A component that never changes carries nothing, and is only centred.
        """
        n, total, squares = 0, torch.zeros(()), torch.zeros(())
        for block in blocks:
            rows = block.cpu().double()  # float64, which some devices lack
            n, total, squares = n + len(rows), total + rows.sum(0), squares + rows.square().sum(0)
        mean = total / n
        variance = (squares / n - mean.square()).clamp(min=0.0)
        constant = variance <= 1e-12 * mean.square()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(constant, 1.0, variance.sqrt()))

    def forward(self, rows: Tensor) -> Tensor:
        """Scale rows (…, width), computed in float32."""
        stacked = self.mean.dim() == 2
        mean, deviation = (x.unsqueeze(1) if stacked else x for x in (self.mean, self.deviation))
        return ((rows - mean) / deviation).to(rows.dtype)


class Residual(nn.Module):
    """Rows plus what layers make of them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, rows: Tensor) -> Tensor:
        """Add to rows (…, width) what the layers give, of the same width."""
        added: Tensor = self.layers(rows)
        return rows + added


class Dropout(nn.Module):
    """Set components to zero at a rate, and scale the others to keep their mean.

    Draws come from 64-bit integers, four to a number, which costs a fraction of drawing a uniform number
    for each component; a rate is therefore a multiple of 1/65,536 (0.2 is 0.19999695, and scaled as such).
    Alone a run draws from torch's global generator; among others from one of its own, so that seeded alike
    it drops the same components.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        dropped = round(rate * _LEVELS)
        self.threshold: int | Tensor = dropped - _LEVELS // 2
        self.scale: float | Tensor = _LEVELS / (_LEVELS - dropped)
        self.generators: Sequence[torch.Generator | None] = (None,)
        """One for each run; None: torch's global one."""

    def stack(self, others: Sequence["Dropout"], generators: Sequence[torch.Generator]) -> None:
        """Serve the runs of ``others``, each at its own rate and from its own generator."""
        device = generators[0].device
        self.rate = max(other.rate for other in others)
        self.threshold = torch.tensor([other.threshold for other in others], dtype=torch.int32, device=device)
        self.scale = torch.tensor([other.scale for other in others], device=device)
        self.generators = generators

    def forward(self, rows: Tensor) -> Tensor:
        """Drop components of rows (…) while training."""
        if not self.training or not self.rate:
            return rows
        n_runs = len(self.generators)
        per_run = rows.numel() // n_runs
        draws = torch.empty(n_runs, -(-per_run // 4), dtype=torch.int64, device=rows.device)
        for draw, generator in zip(draws, self.generators, strict=True):
            draw.random_(-(2**63), None, generator=generator)
        levels = draws.view(torch.int16)[:, :per_run].reshape(rows.shape)  # uniform in [-32768, 32767]
        # The mask in the dtype of the rows: on a CPU a product with booleans takes five times as long.
        mask = torch.empty_like(levels, dtype=rows.dtype)
        torch.ge(levels, self._by_run(self.threshold, rows), out=mask)
        # Scaled after the mask: a scale rounded to bfloat16 beforehand would be off by up to 0.4%.
        return (rows * mask * self._by_run(self.scale, rows)).to(rows.dtype)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"{self.rate:g}"

    @staticmethod
    def _by_run(value: float | Tensor, rows: Tensor) -> float | Tensor:
        return value.view(-1, *[1] * (rows.dim() - 1)) if isinstance(value, Tensor) else value
