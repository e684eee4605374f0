"""The weighted sum that a run minimises."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from align_cache.adapters.pair import fuse
from align_cache.losses.contrastive import CONTRASTIVE, Directions
from align_cache.losses.distribution import DISTRIBUTION
from align_cache.losses.structure import structure_preservation

Contrastive: TypeAlias = Literal["infonce", "siglip", "ntxent", "hard_negative"]
Distribution: TypeAlias = Literal["variance", "log_variance", "coral", "mmd"]
Direction: TypeAlias = Literal["both", "text_to_image", "image_to_text"]


class LossParts(NamedTuple):
    """The loss and what it is made of, tensors of shape (…)."""

    total: Tensor
    contrastive: Tensor
    distribution: Tensor
    """The distribution term before its weight; 0 where it is off. What else the total has is structure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """``contrastive + variance_weight · distribution(aligned, reference) + structure_weight · structure``.

    What is named or counted chooses the computation; the other values are numbers, or tensors that
    broadcast against the leading dimensions (…) of what is judged.
    """

    contrastive: Contrastive = "infonce"
    direction: Direction = "both"
    label_smoothing: Tensor | float = 0.0
    bias: Tensor | float = -10.0
    """Of ``siglip``, where the call gives none."""
    hardness: Tensor | float = 1.0
    """Of ``hard_negative``."""
    distribution: Distribution = "variance"
    variance_weight: Tensor | float | None = None
    """Of the distribution term, whichever it is; None leaves it out."""
    structure_weight: Tensor | float | None = None
    """Of the structure term; None leaves it out."""
    structure_levels: int = 1
    structure_temperature: Tensor | float = 0.2

    def __call__(
        self,
        image: Tensor,
        text: Tensor,
        reference: Tensor | None,
        *,
        temperature: Tensor | float,
        bias: Tensor | float | None = None,
        features: tuple[Tensor, Tensor] | None = None,
        weights: Directions | None = None,
    ) -> LossParts:
        """Judge batches of embeddings.

        Parameters
        ----------
        image, text : float tensor, shape (…, n, D)
            Unit-norm embeddings; row i of both is one pair.
        reference : float tensor, shape (…, n, D), or None
            Unit-norm reference features of the same pairs; None leaves the distribution term out.
        temperature : float or tensor that broadcasts against (…)
        bias : float or tensor that broadcasts against (…), optional
            Of ``siglip``, where it is learned.
        features : pair of float tensors, shape (…, n, image_dim) and (…, n, text_dim), optional
            What the embeddings were made of; needed by the structure term alone.
        weights : Directions of tensors that broadcast against (…), optional
            Of the two directions, where both are asked for; None: 1 and 1.
        """
        ways = self._contrast(image, text, temperature, self.bias if bias is None else bias)
        pull = self._combined(ways, weights)
        total, match = pull, torch.zeros_like(pull)
        if self.variance_weight is not None and reference is not None:
            match = DISTRIBUTION[self.distribution](fuse(image, text), reference)
            total = total + self.variance_weight * match
        if self.structure_weight is not None:
            assert features is not None  # the structure term compares with them
            keep = self._structure(features[0], image) + self._structure(features[1], text)
            total = total + self.structure_weight * keep
        return LossParts(total, pull, match)

    def _contrast(
        self, image: Tensor, text: Tensor, temperature: Tensor | float, bias: Tensor | float
    ) -> Directions:
        own: dict[str, Any] = {"siglip": {"bias": bias}, "hard_negative": {"hardness": self.hardness}}
        return CONTRASTIVE[self.contrastive](
            image,
            text,
            temperature=temperature,
            label_smoothing=self.label_smoothing,
            **own.get(self.contrastive, {}),
        )

    def _combined(self, ways: Directions, weights: Directions | None) -> Tensor:
        if self.direction != "both":
            chosen: Tensor = getattr(ways, self.direction)
            return chosen
        if weights is None:
            return (ways.image_to_text + ways.text_to_image) / 2
        weighed = weights.image_to_text * ways.image_to_text + weights.text_to_image * ways.text_to_image
        return weighed / 2

    def _structure(self, features: Tensor, embeddings: Tensor) -> Tensor:
        return structure_preservation(
            features, embeddings, temperature=self.structure_temperature, levels=self.structure_levels
        )
