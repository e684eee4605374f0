"""The training loop: one step, one epoch, and the loss of what was not trained on.

A trainer takes the steps of one run, or of several runs of one shape together: then every tensor has a
leading run dimension, and each run's result is the one it would have had alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from align_cache.adapters import AdapterPair
from align_cache.batches import StepRows
from align_cache.capture import CapturedStep
from align_cache.embedding import Batch, Inputs, embed
from align_cache.errors import NonFiniteError
from align_cache.losses import Balance, Directions, LossParts, Objective
from align_cache.stacking import stack, stack_values


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


@dataclass(frozen=True, slots=True)
class Losses:
    """What was measured in the steps of one epoch, float64 on the CPU, one entry a step."""

    parts: LossParts
    grad_norm: Tensor
    """Before clipping."""
    temperature: Tensor
    weights: Directions | None = None
    """Of the two directions, where a balance weighs them."""

    def means(self, weight: float | None) -> dict[str, float]:
        """Mean the parts over the steps."""
        return self._taken(lambda of_steps: float(of_steps.mean()), weight)

    def step(self, index: int, weight: float | None) -> dict[str, float]:
        """Return the parts of one step."""
        return self._taken(lambda of_steps: float(of_steps[index]), weight)

    def _taken(self, take: Callable[[Tensor], float], weight: float | None) -> dict[str, float]:
        record = _record(*map(take, self.parts), weight=weight)
        if self.weights is not None:
            record |= {f"weight_{way}": take(own) for way, own in self.weights._asdict().items()}
        return record


def moving_average(pair: AdapterPair, decay: float) -> AveragedModel:
    """Keep an exponential moving average of the weights beside them."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch declares no types here
    return AveragedModel(pair, multi_avg_fn=average)


class Trainer:
    """Takes the steps of its members on features that they share."""

    def __init__(
        self,
        members: Sequence[Member],
        inputs: Inputs,
        *,
        device: torch.device,
        bf16: bool,
        cuda_graph: bool = False,
    ) -> None:
        self.members, self._inputs, self._bf16 = members, inputs, bf16
        self._generators: list[torch.Generator] = []
        self._pair, self._objective = members[0].pair, members[0].objective
        self._balance = members[0].balance
        if len(members) > 1:
            self._generators = [torch.Generator(device) for _ in members]
            self._pair = stack([member.pair for member in members], generators=self._generators)
            self._objective = stack_values([member.objective for member in members], device)
            balances = [member.balance for member in members if member.balance is not None]
            self._balance = stack(balances, generators=self._generators) if balances else None
        self._take: Callable[[Batch], Tensor] = self._update
        if cuda_graph:
            optimizers = [member.optimizer for member in members]
            self._take = CapturedStep(self._update, optimizers, self._generators)

    def epoch(self, steps: Iterable[Sequence[StepRows]], *, epoch: int, first_step: int) -> list[Losses]:
        """Train one epoch.

        Parameters
        ----------
        steps : iterable of StepRows for each member
        epoch : int
            1, 2, …; dropout depends on it and on the run's seed alone, so that a resumed run draws the same.
        first_step : int
            Steps that every member took before.

        Returns
        -------
        list of Losses, one for each member. They are read from the device once, after the last step.
        """
        self._seed(epoch)
        self._pair.train()
        seen = []
        batches = self._inputs.batches(steps, with_reference=self._objective.variance_weight is not None)
        for step, batch in enumerate(batches, start=first_step):
            self._set_learning_rates(step)
            seen.append(self._take(batch))
        table = torch.stack(seen).double().cpu().reshape(len(seen), -1, len(self.members))
        return [
            Losses(LossParts(*own[:3]), own[3], own[4], Directions(*own[5:]) if len(own) > 5 else None)
            for own in table.permute(2, 1, 0)
        ]

    def _update(self, batch: Batch) -> Tensor:
        """Take one step; return its measurements, by member.

        They are the loss's three parts, the gradient's norm, the temperature and, where a balance weighs
        them, the weights of the two directions.

        All micro-batches go through the adapters in one forward pass: the adapters treat each row by itself,
        so that the gradient is the one of accumulating them in turn. Nothing here waits for the device.
        """
        self._zero_grad()
        image = embed(self._pair.image, batch.image, bf16=self._bf16)
        text = embed(self._pair.text, batch.text, bf16=self._bf16)
        weights = self._weigh(image, text, batch.batch_size)
        parts = mean_loss(
            self._objective,
            image,
            text,
            batch.reference,
            scale=self._pair,
            features=(batch.image, batch.text),
            batch_size=batch.batch_size,
            weights=weights,
        )
        temperature = self._pair.temperature.detach().clone()  # the one that the loss was taken at
        parts.total.sum().backward()  # type: ignore[no-untyped-call]
        norms = [clip_grad_norm_(m.trained, m.clip_grad_norm or float("inf")) for m in self.members]
        for member in self.members:
            member.optimizer.step()
            if member.average is not None:
                member.average.update_parameters(member.pair)
        norm = torch.stack(norms).view_as(parts.total)
        return torch.stack([*(part.detach() for part in parts), norm, temperature, *(weights or ())])

    def _weigh(self, image: Tensor, text: Tensor, batch_size: int) -> Directions | None:
        """Balance the directions by the embeddings of a step."""
        if self._balance is None:
            return None
        blocks = (_micro_batches(rows, batch_size) for rows in (image, text))
        weights: Directions = self._balance(*blocks, temperature=self._pair.temperature[..., None])
        return weights

    def _set_learning_rates(self, step: int) -> None:
        for member in self.members:
            for group in member.optimizer.param_groups:
                rate = member.learning_rates[step] * group["lr_factor"]
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def _seed(self, epoch: int) -> None:
        seeds = [member.seed * 100_003 + epoch for member in self.members]
        if not self._generators:
            torch.manual_seed(seeds[0])
        for generator, seed in zip(self._generators, seeds, strict=False):
            generator.manual_seed(seed)

    def _zero_grad(self) -> None:
        if len(self.members) == 1:
            self.members[0].optimizer.zero_grad(set_to_none=True)
            return
        for parameter in self._pair.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()  # the members look into it


@torch.no_grad()
def validation_loss(
    member: Member,
    image: Tensor,
    text: Tensor,
    reference: Tensor | None,
    *,
    features: tuple[Tensor, Tensor],
    batch_size: int,
) -> dict[str, float]:
    """Judge unit-norm embeddings (n, D), made of ``features``, in whole batches, as training does."""
    size = min(batch_size, len(image))
    whole = len(image) // size * size
    parts = mean_loss(
        member.objective,
        image[:whole],
        text[:whole],
        None if reference is None else reference[:whole],
        scale=member.judged,
        features=(features[0][:whole], features[1][:whole]),
        batch_size=size,
    )
    return _record(*(float(part) for part in parts), weight=member.variance_weight)


def mean_loss(
    objective: Objective,
    image: Tensor,
    text: Tensor,
    reference: Tensor | None,
    *,
    scale: AdapterPair,
    features: tuple[Tensor, Tensor],
    batch_size: int,
    weights: Directions | None = None,
) -> LossParts:
    """Mean the loss of embeddings (…, m · batch_size, D) over their m micro-batches: (…).

    Similarities are scaled by the temperature, and the bias if there is one, of the pair ``scale``;
    ``weights`` (…) are those of the two directions, None: both alike.
    """
    blocks = partial(_micro_batches, batch_size=batch_size)
    losses = objective(
        blocks(image),
        blocks(text),
        None if reference is None else blocks(reference),
        temperature=scale.temperature[..., None],
        bias=None if scale.bias is None else scale.bias[..., None],
        features=(blocks(features[0]), blocks(features[1])),
        weights=None if weights is None else Directions(*(way[..., None] for way in weights)),
    )
    return LossParts(*(part.mean(-1) for part in losses))


def _micro_batches(rows: Tensor, batch_size: int) -> Tensor:
    """View the rows of a step as its micro-batches: (…, m, batch_size, D)."""
    return rows.view(*rows.shape[:-2], -1, batch_size, rows.shape[-1])


def require_finite(losses: dict[str, float], *, epoch: int) -> None:
    """Stop a run whose loss is no number.

    Raises
    ------
    NonFiniteError
    """
    if losses["loss"] != losses["loss"] or abs(losses["loss"]) == float("inf"):
        raise NonFiniteError(f"the loss is {losses['loss']} in epoch {epoch}",
                             hint="lower optim.lr, or raise loss.temperature")  # fmt: skip


def _record(loss: float, pull: float, match: float, *, weight: float | None) -> dict[str, float]:
    """Name the parts, and the share of the loss that the weighted distribution term is."""
    share = (weight or 0.0) * match / loss if loss else 0.0
    return {"loss": loss, "contrastive": pull, "variance": match, "variance_share": share}
