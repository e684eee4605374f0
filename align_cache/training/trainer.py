"""The training loop: one step, one epoch.

A trainer takes the steps of one run, or of several runs of one shape together: then every tensor has a
leading run dimension, and each run's result is the one it would have had alone.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from align_cache.adapters.stacking import stack, stack_values
from align_cache.losses import Directions, LossParts
from align_cache.pairing.batches import StepRows
from align_cache.pairing.embedding import Batch, Inputs, embed
from align_cache.training.capture import CapturedStep
from align_cache.training.member import Member
from align_cache.training.run_loss import Losses, mean_loss, micro_batches


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
        so that the gradient is the one of accumulating them in turn. Nothing here waits for the device but an
        LSTM, which reads its captions' lengths.
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
        blocks = (micro_batches(rows, batch_size) for rows in (image, text))
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
