"""The loss of a run: of a step's micro-batches, of an epoch's steps, of what was not trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from align_cache.adapters.pair import AdapterPair
from align_cache.errors import NonFiniteError
from align_cache.losses import Directions, LossParts, Objective
from align_cache.training.member import Member


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
    blocks = partial(micro_batches, batch_size=batch_size)
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


def micro_batches(rows: Tensor, batch_size: int) -> Tensor:
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
