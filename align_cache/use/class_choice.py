"""The class of a picture by its name alone: class prompts embedded, and the nearest taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align_cache.adapters.pair import unit
from align_cache.errors import NonFiniteError, UsageError
from align_cache.pairing.embedding import BLOCK_ROWS
from align_cache.sources.base import CaptionSample


@dataclass(frozen=True)
class ClassChoice:
    """Which classes n pictures are nearest to, the nearest first."""

    names: tuple[str, ...]
    """Of all classes, in the order in which they were given, without the spaces around them."""
    classes: NDArray[np.int64]
    """Places in ``names``, shape (n, k)."""
    probabilities: NDArray[np.float32]
    """Softmax over all classes of cosine over temperature, shape (n, k). They are as sharp as the temperature
    that was trained with, and not calibrated."""

    def top(self) -> list[str]:
        """Name the nearest class of each picture."""
        return [self.names[place] for place in self.classes[:, 0]]


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of at least two classes, which have to read differently.

    Raises
    ------
    UsageError
    """
    names = tuple(name.strip() for name in classes)
    read = {name.replace("_", " ") for name in names}  # as prompts have it
    if isinstance(classes, str) or len(names) < 2 or not all(names) or len(read) < len(names):
        raise UsageError(
            f"classes = {classes!r}, expected two or more names, none of them twice",
            hint="--classes dog,cat, or a text file with a name a line",
        )
    return names


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
    """Rank classes (c, D) for unit-norm images (n, D); the first ``top`` of each are kept.

    Of equally near classes the earlier stands first.
    """
    parts = [
        _nearest(block, heads, temperature=temperature, top=top) for block in torch.split(images, BLOCK_ROWS)
    ]
    places, shares = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
    return ClassChoice(tuple(names), places.astype(np.int64), shares)


def _nearest(images: Tensor, heads: Tensor, *, temperature: float, top: int) -> tuple[Tensor, Tensor]:
    # By cosine: at a low temperature the probabilities of far classes are all zero.
    cosines, places = (images @ heads.T).sort(dim=1, descending=True, stable=True)
    return places[:, :top], torch.softmax(cosines / temperature, dim=1)[:, :top]
