"""In which order an epoch visits its images."""

from typing import Literal, TypeAlias

import numpy as np

from align_cache.pairing.pairs import Rows

Order: TypeAlias = Literal["shuffled", "blocks"]

BLOCK_IMAGES = 4096
"""Neighbouring images that are visited together: 6 MB of 768 float16 features, read in one stretch."""
MIXED_BLOCKS = 16
"""Blocks whose images are shuffled together: 65,536 images, 0.1 GB of such features."""


def visit(
    images: Rows,
    generator: np.random.Generator,
    *,
    order: Order,
    block_images: int = BLOCK_IMAGES,
    mixed_blocks: int = MIXED_BLOCKS,
) -> Rows:
    """Draw the order in which images are visited, each once.

    Parameters
    ----------
    images : int array, shape (n,)
        Positions, ascending: neighbours lie together on the disk.
    generator : numpy Generator
    order : {"shuffled", "blocks"}
        ``shuffled``: any order is as likely as any other. ``blocks``: runs of ``block_images`` neighbours are
        shuffled as wholes, cut elsewhere at each draw; of each ``mixed_blocks`` of them in turn the images
        are shuffled among themselves.

    Returns
    -------
    int array, shape (n,)
    """
    if order == "shuffled":
        return generator.permutation(images)
    first_cut = int(generator.integers(1, block_images + 1))
    blocks = np.split(images, np.arange(first_cut, len(images), block_images))
    drawn = generator.permutation(len(blocks))
    windows = [drawn[start : start + mixed_blocks] for start in range(0, len(drawn), mixed_blocks)]
    return np.concatenate(
        [generator.permutation(np.concatenate([blocks[block] for block in window])) for window in windows]
    )


def scattered(rows: Rows) -> bool:
    """Tell whether the rows of neighbouring images do not follow each other, so that blocks help nothing."""
    return len(rows) > BLOCK_IMAGES and float((np.diff(rows) > 0).mean()) < 0.9
