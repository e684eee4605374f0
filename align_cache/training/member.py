"""One run as the trainer sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from align_cache.adapters.pair import AdapterPair
from align_cache.losses import Balance, Objective


@dataclass(frozen=True, slots=True)
class Member:
    """One run: what it trains and how; plain values, no config."""

    pair: AdapterPair
    objective: Objective
    optimizer: Optimizer
    learning_rates: Sequence[float]
    """Of every step of the run."""
    clip_grad_norm: float | None
    seed: int
    average: AveragedModel | None = None
    """Moving average of the weights; None: not kept."""
    balance: Balance | None = None
    """Weighs the two directions of the loss; None: both alike."""

    @property
    def judged(self) -> AdapterPair:
        """The pair that is measured and saved: the average where one is kept."""
        if self.average is None:
            return self.pair
        assert isinstance(self.average.module, AdapterPair)  # what moving_average averages
        return self.average.module

    @property
    def variance_weight(self) -> float | None:
        """Weight of the distribution term; None where it is off."""
        weight = self.objective.variance_weight
        return None if weight is None else float(weight)

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that the optimiser moves."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def moving_average(pair: AdapterPair, decay: float) -> AveragedModel:
    """Keep an exponential moving average of the weights beside them."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch declares no types here
    return AveragedModel(pair, multi_avg_fn=average)
