"""A curriculum: the training images whose pairs are most alike come first."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.adapters.pair import AdapterPair
from align_cache.pairing.embedding import Inputs, embed_pairs
from align_cache.pairing.pairs import Pairs, Rows

_PART_IMAGES = 65_536
"""Images embedded at once, as the training images may be too many for memory."""


def curriculum_share(epoch: int, *, epochs: int, start: float) -> float:
    """Return the share of the images that train in an epoch (1, 2, …).

    The first epoch sees all, as nothing is known yet; the second ``start``, and linearly more from there,
    until after ``epochs`` of them all train again.
    """
    if epoch < 2 or epoch >= 2 + epochs:
        return 1.0
    return start + (1 - start) * (epoch - 2) / epochs


def most_alike(pair: AdapterPair, inputs: Inputs, pairs: Pairs, *, share: float, at_least: int) -> Rows:
    """Return the positions of the images whose embeddings are nearest to those of their first captions.

    Parameters
    ----------
    share : float in (0, 1]
        Of the images.
    at_least : int
        Images, whatever their share.
    """
    alike = np.concatenate([_alike(pair, inputs, part) for part in _parts(pairs.with_first_captions())])
    n = max(at_least, round(share * pairs.n_images))
    return np.sort(np.argsort(-alike, kind="stable")[:n])


def _parts(pairs: Pairs) -> Iterator[Pairs]:
    for start in range(0, pairs.n_images, _PART_IMAGES):
        yield pairs.subset(np.arange(start, min(start + _PART_IMAGES, pairs.n_images)))


def _alike(pair: AdapterPair, inputs: Inputs, pairs: Pairs) -> NDArray[np.float32]:
    """Return the cosine of each image with its one caption."""
    embedded = embed_pairs(pair, inputs, pairs)
    cosines: NDArray[np.float32] = torch.linalg.vecdot(embedded.image, embedded.captions).cpu().numpy()
    return cosines
