"""The training loop: one step, one epoch, and the loss of what was not trained on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from align_cache.adapters import AdapterPair, unit
from align_cache.embedding import Inputs, embed
from align_cache.errors import NonFiniteError
from align_cache.losses import LossParts, Objective
from align_cache.pairs import StepRows


class LossSums:
    """Running means of the loss and its parts, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, parts: LossParts) -> None:
        """Count one step."""
        self._sums.append(torch.stack([part.detach() for part in parts]))

    def means(self, variance_weight: float | None) -> dict[str, float]:
        """Read the means, and the share of the loss that the weighted variance term is."""
        loss, pull, match = torch.stack(self._sums).double().mean(0).tolist()
        share = (variance_weight or 0.0) * match / loss if loss else 0.0
        return {"loss": loss, "contrastive": pull, "variance": match, "variance_share": share}


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything one step needs; plain values, no config."""

    pair: AdapterPair
    inputs: Inputs
    objective: Objective
    optimizer: Optimizer
    scheduler: LRScheduler
    clip_grad_norm: float | None
    bf16: bool

    def step(self, rows: StepRows) -> tuple[LossParts, Tensor]:
        """Take one step of the optimiser; return the mean loss of its micro-batches and the gradient's norm.

        All micro-batches go through the adapters in one forward pass: the adapters treat each row by itself,
        so that the gradient is the one of accumulating them in turn.
        """
        self.optimizer.zero_grad(set_to_none=True)
        image = embed(self.pair.image, self.inputs.image.take(rows.image_rows), bf16=self.bf16)
        text = embed(self.pair.text, self.inputs.text.take(rows.caption_rows), bf16=self.bf16)
        parts = self._mean_loss(image, text, self._reference(rows), rows.batch_size)
        parts.total.backward()  # type: ignore[no-untyped-call]
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = clip_grad_norm_(trained, self.clip_grad_norm or float("inf"))
        self.optimizer.step()
        self.scheduler.step()
        return parts, norm

    def epoch(self, steps: Iterable[StepRows], *, on_step: Callable[[LossParts, Tensor], None]) -> LossSums:
        """Train one epoch; ``on_step`` is told the loss and the gradient's norm after each step."""
        self.pair.train()
        sums = LossSums()
        for rows in steps:
            parts, norm = self.step(rows)
            sums.add(parts)
            on_step(parts, norm)
        return sums

    @torch.no_grad()
    def validation_loss(
        self, image: Tensor, text: Tensor, reference: Tensor | None, *, batch_size: int
    ) -> LossSums:
        """Judge unit-norm embeddings (n, D) of pairs in whole batches, as training does."""
        sums = LossSums()
        size = min(batch_size, len(image))
        for start in range(0, len(image) - size + 1, size):
            block = slice(start, start + size)
            target = None if reference is None else reference[block]
            sums.add(self._mean_loss(image[block], text[block], target, size))
        return sums

    def _mean_loss(self, image: Tensor, text: Tensor, reference: Tensor | None, batch_size: int) -> LossParts:
        def blocks(rows: Tensor) -> Tensor:
            return rows.view(-1, batch_size, rows.shape[-1])

        targets = [None] * (len(image) // batch_size) if reference is None else blocks(reference)
        batches = zip(blocks(image), blocks(text), targets, strict=True)
        temperature = self.pair.temperature
        losses = [self.objective(i, t, r, temperature=temperature) for i, t, r in batches]
        return LossParts(*(torch.stack(part).mean() for part in zip(*losses, strict=True)))

    def _reference(self, rows: StepRows) -> Tensor | None:
        if self.objective.variance_weight is None or self.inputs.reference is None:
            return None
        assert rows.reference_rows is not None  # the pairs were joined with the reference
        return unit(self.inputs.reference.take(rows.reference_rows))


def require_finite(losses: dict[str, float], *, epoch: int) -> None:
    """Stop a run whose loss is no number.

    Raises
    ------
    NonFiniteError
    """
    if losses["loss"] != losses["loss"] or abs(losses["loss"]) == float("inf"):
        raise NonFiniteError(f"the loss is {losses['loss']} in epoch {epoch}",
                             hint="lower optim.lr, or raise loss.temperature")  # fmt: skip
