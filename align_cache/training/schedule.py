"""The learning rate over a run: torch's own schedulers, one after the other."""

from typing import Literal, TypeAlias

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
    StepLR,
)

Decay: TypeAlias = Literal["cosine", "linear", "step", "exponential", "constant"]


def learning_rates(
    peak: float,
    *,
    warmup_steps: int,
    total_steps: int,
    decay: Decay = "cosine",
    min_lr: float = 0.0,
    num_cycles: float = 0.5,
    decay_steps: int = 1,
    decay_factor: float = 1.0,
) -> list[float]:
    """Write down the rate of every step, so that a run can begin at any of them.

    Parameters
    ----------
    peak : float
    warmup_steps, total_steps : int
        The rate rises linearly over the former, step 1 already having 1/warmup_steps of the peak, and
        decays over what is left of the latter.
    decay : {"cosine", "linear", "step", "exponential", "constant"}
    min_lr : float
        What ``cosine`` and ``linear`` would come to one step after the last.
    num_cycles : float
        Periods of the cosine; 0.5 falls once.
    decay_steps, decay_factor : int >= 1, float in (0, 1]
        ``step`` multiplies the rate by the factor every so many steps, ``exponential`` by the same in as
        many steps, a little in each.

    Returns
    -------
    list of total_steps floats.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    after = _decay(
        optimizer,
        decay,
        steps=max(1, total_steps - warmup_steps),
        min_lr=min_lr,
        num_cycles=num_cycles,
        decay_steps=decay_steps,
        decay_factor=decay_factor,
    )
    scheduler = _after_warmup(optimizer, after, warmup_steps)
    rates = []
    for _ in range(total_steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def _after_warmup(optimizer: Optimizer, decay: LRScheduler, warmup_steps: int) -> LRScheduler:
    if warmup_steps == 0:
        return decay
    warmup = LinearLR(optimizer, start_factor=1 / warmup_steps, total_iters=max(1, warmup_steps - 1))
    return SequentialLR(optimizer, [warmup, decay], milestones=[warmup_steps])


def _decay(
    optimizer: Optimizer,
    decay: Decay,
    *,
    steps: int,
    min_lr: float,
    num_cycles: float,
    decay_steps: int,
    decay_factor: float,
) -> LRScheduler:
    """Make the scheduler of the ``steps`` after warm-up."""
    match decay:
        case "cosine":
            half_period = max(1, round(steps / (2 * num_cycles)))
            return CosineAnnealingLR(optimizer, T_max=half_period, eta_min=min_lr)
        case "linear":
            end = min_lr / float(optimizer.param_groups[0]["lr"])
            return LinearLR(optimizer, start_factor=1.0, end_factor=end, total_iters=steps)
        case "step":
            return StepLR(optimizer, step_size=decay_steps, gamma=decay_factor)
        case "exponential":
            return ExponentialLR(optimizer, gamma=decay_factor ** (1 / decay_steps))
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
