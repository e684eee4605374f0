"""The steps of an epoch: pairs in batches without false negatives, drawn by the seed and the epoch alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from align_cache.pairing.pairs import Pairs, Rows
from align_cache.pairing.visiting import Order, scattered, visit

CaptionsPerImage = int | Literal["all"]

_BLOCK_CAPTIONS = 1 << 18


@dataclass(frozen=True, slots=True)
class StepRows:
    """One optimiser step: micro-batches of ``batch_size`` pairs, one after the other, as rows."""

    image_rows: Rows
    caption_rows: Rows
    reference_rows: Rows | None
    batch_size: int
    mix: NDArray[np.float32] | None = None
    """Share of the pair itself where it is mixed with the next one of its micro-batch; None: it is not."""


class Batches:
    """The steps of every epoch, a function of the seed and the epoch alone.

    An epoch visits each image in up to ``captions_per_image`` rounds, each with another of its captions,
    and no batch crosses a round: two captions of one image in a batch would be false negatives. A round's
    incomplete last batch is left out, as other images fall into it next time.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        batch_size: int,
        accumulation: int,
        captions_per_image: CaptionsPerImage,
        seed: int,
        mixup: float = 0.0,
        order: Order = "shuffled",
    ) -> None:
        most = int(pairs.caption_counts.max())
        rounds = most if captions_per_image == "all" else min(captions_per_image, most)
        self._pairs, self._accumulation, self._seed, self._mixup = pairs, accumulation, seed, mixup
        self._order: Order = order
        self._members = [np.flatnonzero(pairs.caption_counts > r) for r in range(rounds)]
        self.batch_size = min(batch_size, pairs.n_images)
        shrunk = (
            f"batch_size = {batch_size:,}, and only {pairs.n_images:,} images train: all of them in one batch"
        )
        self.notes: tuple[str, ...] = (shrunk,) if self.batch_size < batch_size else ()
        self.notes += _reading_notes(pairs) if order == "blocks" else ()
        per_round = [len(members) // self.batch_size for members in self._members]
        self.batches_per_epoch = sum(per_round)
        self.steps_per_epoch = -(-self.batches_per_epoch // accumulation)

    @property
    def shape(self) -> tuple[int, ...]:
        """What two runs have to share for their steps to be taken together."""
        return self.batch_size, self.batches_per_epoch, self._accumulation, int(self._mixup > 0)

    def epoch(self, epoch: int, *, pool: Rows | None = None) -> Iterator[StepRows]:
        """Give the steps of one epoch (1, 2, …).

        Parameters
        ----------
        pool : int array, optional
            Positions of the images to draw from, at least a batch of them; as many batches as ever are made
            of them. None: all images.
        """
        pairs, size = self._pairs, self.batch_size
        generator = np.random.default_rng([self._seed, epoch])
        order = _shuffled_captions(pairs, generator)
        images, captions = [], []
        for round_, members in enumerate(self._members):
            chosen = self._drawn(members, pool, generator)
            images.append(chosen)
            captions.append(order[pairs.caption_starts[chosen] + round_])
        image, caption = np.concatenate(images), np.concatenate(captions)
        mix = None
        if self._mixup:
            mix = generator.beta(self._mixup, self._mixup, len(image)).astype(np.float32)
        for start in range(0, len(image), size * self._accumulation):
            step = slice(start, start + size * self._accumulation)
            reference = None if pairs.reference_rows is None else pairs.reference_rows[image[step]]
            yield StepRows(
                pairs.image_rows[image[step]],
                caption[step],
                reference,
                size,
                mix=None if mix is None else mix[step],
            )

    def _drawn(self, members: Rows, pool: Rows | None, generator: np.random.Generator) -> Rows:
        """Shuffle the images of a round into whole batches, no image twice in one."""
        wanted = len(members) // self.batch_size * self.batch_size
        if pool is None:
            return visit(members, generator, order=self._order)[:wanted]
        drawn_from = np.intersect1d(members, pool)
        if len(drawn_from) < self.batch_size:  # of a late round with few images: all of them
            drawn_from = members
        whole = len(drawn_from) // self.batch_size * self.batch_size
        passes = [
            visit(drawn_from, generator, order=self._order)[:whole]
            for _ in range(-(-wanted // max(whole, 1)))
        ]
        return np.concatenate([*passes, members[:0]])[:wanted]


def _shuffled_captions(pairs: Pairs, generator: np.random.Generator) -> Rows:
    """Shuffle the captions of each image among themselves; the images stay where they are.

    Some images at a time, as the keys of all captions would take several times the memory of the result.
    """
    starts, shuffled = pairs.caption_starts, np.empty_like(pairs.caption_rows)
    cuts = np.searchsorted(starts, np.arange(0, pairs.n_captions, _BLOCK_CAPTIONS))
    for first, end in pairwise([*np.unique(cuts), pairs.n_images]):
        block = slice(starts[first], starts[end])
        keys = generator.random(starts[end] - starts[first])
        owner = np.repeat(np.arange(end - first), np.diff(starts[first : end + 1]))
        shuffled[block] = pairs.caption_rows[block][np.lexsort((keys, owner))]
    return shuffled


def _reading_notes(pairs: Pairs) -> tuple[str, ...]:
    """Say of which sets the rows of neighbouring images are not neighbours."""
    first_captions = pairs.caption_rows[pairs.caption_starts[:-1]]
    sets = {"captions": first_captions, "reference": pairs.reference_rows}
    return tuple(
        f"the {name} are not in the order of the images: data.order = blocks reads them row by row"
        for name, rows in sets.items()
        if rows is not None and scattered(rows)
    )
