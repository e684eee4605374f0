"""How much each direction of a symmetric loss weighs: decided by what the similarities of a step show."""

from math import log
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from align_cache.errors import ShapeError
from align_cache.losses.contrastive import Directions

Schedule: TypeAlias = Literal["variance", "entropy", "spread"]

LEAST_SIGNAL: Final[dict[Schedule, float]] = {"variance": 1e-8, "entropy": 1e-8, "spread": 0.01}
"""What a direction counts as at least. Only a spread can be negative; the others' guard 0 / 0."""


def row_signal(schedule: Schedule, cosines: Tensor, temperature: Tensor | float) -> Tensor:
    """Measure how the rows of a matrix of similarities tell their candidates apart.

    ``variance``: mean over rows of the variance within a row (divided by n). ``entropy``: mean over rows of
    the entropy of softmax(row / temperature), over log n. ``spread``: mean over rows of the pair's own
    cosine less the largest other one; negative where the hardest negative is nearer.

    Parameters
    ----------
    schedule : {"variance", "entropy", "spread"}
    cosines : float tensor, shape (…, n, n)
        Cosine similarities, n >= 2. Rows that are images judge image-to-text, their transpose text-to-image.
    temperature : float or tensor that broadcasts against (…)
        Read by ``entropy`` alone.

    Returns
    -------
    float tensor, shape (…): a variance in [0, 1], an entropy in [0, 1] or a spread in [−2, 2].

    Raises
    ------
    ShapeError
        A single pair has nothing to be told apart from.
    """
    n = cosines.shape[-1]
    if n < 2:
        raise ShapeError("a batch of 1 pair shows no direction, and at least 2 pairs are needed")
    match schedule:
        case "variance":
            return cosines.var(-1, correction=0).mean(-1)
        case "entropy":
            divisor = temperature[..., None, None] if isinstance(temperature, Tensor) else temperature
            log_share = (cosines / divisor).log_softmax(-1)
            return -(log_share.exp() * log_share).sum(-1).mean(-1) / log(n)
        case "spread":
            own = torch.eye(n, dtype=torch.bool, device=cosines.device)
            hardest = cosines.masked_fill(own, -torch.inf).amax(-1)
            return (cosines.diagonal(dim1=-2, dim2=-1) - hardest).mean(-1)


class Balance(nn.Module):
    """Weighs the two directions by a moving average of their signals: ``w_d = 2 v_d / (v_i2t + v_t2i)``.

    The average is its whole state. It is updated in place and nothing of it is read back to the host, so
    that a step can be recorded as a graph; modules of several runs stack like adapters.
    """

    average: Tensor
    """Of the signals (image-to-text, text-to-image), shape (…, 2); (…) are runs."""
    started: Tensor
    """Whether the average holds anything yet, shape (…)."""
    decay: Tensor

    def __init__(self, schedule: Schedule, *, decay: float) -> None:
        super().__init__()
        self.schedule = schedule
        self.register_buffer("average", torch.zeros(2))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("decay", torch.tensor(decay), persistent=False)

    @torch.no_grad()
    def forward(self, image: Tensor, text: Tensor, *, temperature: Tensor | float) -> Directions:
        """Look at the micro-batches of one step, and weigh the directions of its loss.

        Parameters
        ----------
        image, text : float tensor, shape (…, m, n, D)
            Unit-norm embeddings of m micro-batches, whose signals are averaged: one step, one weight.
        temperature : float or tensor that broadcasts against (…, m)

        Returns
        -------
        Directions of float tensors, shape (…), without a gradient; they add up to 2.
        """
        cosines = image.float() @ text.float().mT
        sides = [row_signal(self.schedule, side, temperature) for side in (cosines, cosines.mT)]
        signal = torch.stack(sides, -1).mean(-2)
        newest = torch.where(self.started, 1.0 - self.decay, 1.0)  # the first value is taken as it is
        self.average.lerp_(signal, newest[..., None])
        self.started.fill_(True)
        counted = self.average.clamp_min(LEAST_SIGNAL[self.schedule])
        weights = 2 * counted / counted.sum(-1, keepdim=True)
        return Directions(weights[..., 0], weights[..., 1])
