"""What is minimised: pure functions of unit-norm embeddings, and the weighted sum of them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from align_cache.adapters import fuse

Direction: TypeAlias = Literal["both", "text_to_image", "image_to_text"]


def contrastive(
    image: Tensor,
    text: Tensor,
    *,
    temperature: Tensor | float,
    label_smoothing: float = 0.0,
    direction: Direction = "both",
) -> Tensor:
    """InfoNCE over a batch of pairs: ``½ (CE(S, diag) + CE(Sᵀ, diag))``, S = image · textᵀ / temperature.

    Parameters
    ----------
    image, text : float tensor, shape (n, dim)
        Unit-norm rows; row i of both is one pair, and no two rows are of the same image.
    temperature : float or 0-d tensor
    label_smoothing : float in [0, 1)
        Mass spread over all n candidates, as in :func:`torch.nn.functional.cross_entropy`.
    direction : {"both", "text_to_image", "image_to_text"}
        One direction alone is the loss that the second document prints.

    Returns
    -------
    0-d float tensor; log n for embeddings that carry nothing.
    """
    logits_per_image = image.float() @ text.float().T / temperature
    targets = torch.arange(len(image), device=image.device)
    losses = []
    if direction != "text_to_image":
        losses.append(F.cross_entropy(logits_per_image, targets, label_smoothing=label_smoothing))
    if direction != "image_to_text":
        losses.append(F.cross_entropy(logits_per_image.T, targets, label_smoothing=label_smoothing))
    return torch.stack(losses).mean()


def variance_matching(embeddings: Tensor, reference: Tensor) -> Tensor:
    """Match the variance of every dimension: ``mean_d (D·Var(z_d) − D·Var(r_d))²``.

    On unit-norm rows the D variances sum to at most 1, so that the plain squared difference is near 1e-6 at
    D = 768 and any weight is inert. Scaled by D, an isotropic embedding has variance 1 in every dimension.

    Parameters
    ----------
    embeddings, reference : float tensor, shape (n, D)
        Unit-norm rows of the same items. Variances are of the batch, over n (not n − 1).

    Returns
    -------
    0-d float tensor, >= 0.
    """
    return (scaled_variance(embeddings) - scaled_variance(reference)).square().mean()


def scaled_variance(rows: Tensor) -> Tensor:
    """Give D · variance of each of the D dimensions of rows (n, D), from two moments."""
    rows = rows.float()
    return rows.shape[-1] * (rows.square().mean(0) - rows.mean(0).square())


class LossParts(NamedTuple):
    """The loss and what it is made of, 0-d tensors."""

    total: Tensor
    contrastive: Tensor
    variance: Tensor
    """The distribution term before its weight; 0 where it is off."""


@dataclass(frozen=True, slots=True)
class Objective:
    """``contrastive + variance_weight · variance_matching(aligned, reference)``.

    ``variance_weight`` None leaves the distribution term out.
    """

    label_smoothing: float
    direction: Direction
    variance_weight: float | None

    def __call__(
        self, image: Tensor, text: Tensor, reference: Tensor | None, *, temperature: Tensor
    ) -> LossParts:
        """Judge one batch of unit-norm embeddings (n, D) against unit-norm reference features (n, D)."""
        pull = contrastive(
            image,
            text,
            temperature=temperature,
            label_smoothing=self.label_smoothing,
            direction=self.direction,
        )
        if self.variance_weight is None or reference is None:
            return LossParts(pull, pull, torch.zeros_like(pull))
        match = variance_matching(fuse(image, text), reference)
        return LossParts(pull + self.variance_weight * match, pull, match)
