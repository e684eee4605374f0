"""The class of a picture by its name alone: class prompts embedded, and the nearest taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align_cache.adapters.pair import unit
from align_cache.errors import NonFiniteError, UsageError
from align_cache.sources.base import CaptionSample
from align_cache.sources.prompts import class_prompts


@dataclass(frozen=True)
class ClassChoice:
    """Which classes n pictures are nearest to, the nearest first."""

    names: tuple[str, ...]
    """Of all classes, in the order in which they were given."""
    classes: NDArray[np.int64]
    """Places in ``names``, shape (n, k)."""
    probabilities: NDArray[np.float32]
    """Softmax over all classes of cosine over temperature, shape (n, k). They are as sharp as the temperature
    that was trained with, and not calibrated."""

    def top(self) -> list[str]:
        """Name the nearest class of each picture."""
        return [self.names[place] for place in self.classes[:, 0]]


def prompts_of(classes: Sequence[str], templates: Sequence[str]) -> tuple[CaptionSample, ...]:
    """Put at least two classes, each of another name, into every template.

    Raises
    ------
    UsageError
        Also for what is no template; see :func:`~align_cache.sources.prompts.class_prompts`.
    """
    names = [name.strip() for name in classes]
    if isinstance(classes, str) or len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise UsageError(f"classes = {classes!r}, expected two or more names, none of them twice")
    return class_prompts(names, templates)


def class_embeddings(prompts: Sequence[CaptionSample], embeddings: Tensor) -> Tensor:
    """Return the unit-norm mean of each class's unit-norm prompts: (m, D) to (classes, D).

    Raises
    ------
    NonFiniteError
        If the prompts of a class cancel out.
    """
    labels = torch.tensor([prompt.label for prompt in prompts], device=embeddings.device)
    heads = torch.zeros(int(labels.max()) + 1, embeddings.shape[1], device=embeddings.device)
    heads.index_add_(0, labels, embeddings)
    if (heads.norm(dim=1) == 0).any():
        raise NonFiniteError("the prompts of a class cancel out: it has no direction")
    return unit(heads)


def choose(
    images: Tensor, heads: Tensor, names: Sequence[str], *, temperature: float, top: int
) -> ClassChoice:
    """Rank classes (c, D) for unit-norm images (n, D); the first ``top`` of each are kept."""
    probabilities = torch.softmax(images @ heads.T / temperature, dim=1)
    kept = probabilities.topk(min(top, len(names)), dim=1)
    return ClassChoice(
        tuple(names), kept.indices.cpu().numpy().astype(np.int64), kept.values.float().cpu().numpy()
    )
