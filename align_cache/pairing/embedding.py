"""Features of pairs as tensors, and the embeddings that adapters make of them.

Training, validation and evaluation all look at pairs through the same named views: ``image``, ``text``,
``aligned`` and ``reference``.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align_cache.adapters.pair import Adapter, AdapterPair, fuse, unit
from align_cache.metrics.summary import concatenate
from align_cache.pairing.batches import StepRows
from align_cache.pairing.pairs import PairedFeatures, Pairs, Rows
from align_cache.runtime import memory_bytes
from align_cache.store import FeatureSet

Where: TypeAlias = Literal["auto", "memory", "mmap"]
Views: TypeAlias = dict[str, Tensor]
"""Unit-norm float32 rows (n, dim) of the same n pairs, by name; widths may differ."""

BLOCK_ROWS = 4096
"""Rows that are embedded at a time."""
_STEPS_AHEAD = 2
"""Steps whose rows are gathered from the map before they are needed."""


class FeatureRows:
    """Rows of one feature set as tensors on a device, from memory or from the map: features as float32.

    Token ids come as int64.
    """

    def __init__(
        self,
        features: FeatureSet,
        rows: Rows,
        *,
        device: torch.device,
        where: Where,
    ) -> None:
        self._features, self._device = features, device
        self._copied: Tensor | None = None
        self.n_bytes = len(rows) * features.dim * features.dtype.itemsize
        """Of the rows as they are stored."""
        if where == "memory" or (where == "auto" and self.n_bytes < memory_bytes() // 8):
            kept = np.unique(rows)
            self._position = np.zeros(features.rows, dtype=np.int64)
            self._position[kept] = np.arange(len(kept))
            self._copied = torch.from_numpy(features.take(kept)).to(device)

    @property
    def holds_tokens(self) -> bool:
        """Whether rows are token ids."""
        return self._features.holds_tokens

    @property
    def mapped(self) -> bool:
        """Whether rows are read from the files as they are asked for."""
        return self._copied is None

    def blocks(self, rows: Rows) -> Iterator[Tensor]:
        """Gather rows some thousands at a time."""
        for start in range(0, len(rows), BLOCK_ROWS):
            yield self.take(rows[start : start + BLOCK_ROWS])

    def take(self, rows: Rows) -> Tensor:
        """Gather rows (…): float32 (…, dim), or int64 of token ids."""
        flat = rows.reshape(-1)
        if self._copied is None:
            gathered = torch.from_numpy(self._features.take(flat)).to(self._device)
        else:
            index = torch.from_numpy(self._position[flat]).to(self._device)
            gathered = self._copied.index_select(0, index)
        typed = gathered.float() if gathered.is_floating_point() else gathered.long()
        return typed.view(*rows.shape, -1)


@dataclass(frozen=True, slots=True)
class Batch:
    """The features of one step, float32 (n, dim), or (runs, n, dim) of several runs; text may be ids."""

    image: Tensor
    text: Tensor
    reference: Tensor | None
    batch_size: int
    """Pairs of a micro-batch; n is a multiple of it."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The features that a run reads, or several."""

    image: FeatureRows
    text: FeatureRows
    reference: FeatureRows | None

    @property
    def mapped_bytes(self) -> int:
        """Bytes of the rows that are read from the files as they are asked for."""
        sets = (self.image, self.text, self.reference)
        return sum(rows.n_bytes for rows in sets if rows is not None and rows.mapped)

    def batches(self, steps: Iterable[Sequence[StepRows]], *, with_reference: bool) -> Iterator[Batch]:
        """Gather the features of step after step, each step the rows of one run or of several.

        Rows that come from the map are gathered ahead, while the step before is computed.
        """
        gather = partial(self._gather, with_reference=with_reference)
        if not self.mapped_bytes:
            yield from map(gather, steps)
            return
        ahead: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1, "gather") as thread:
            for rows in steps:
                ahead.append(thread.submit(gather, rows))
                if len(ahead) > _STEPS_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _gather(self, rows: Sequence[StepRows], *, with_reference: bool) -> Batch:
        size, shares = rows[0].batch_size, [run.mix for run in rows if run.mix is not None]

        def taken(features: FeatureRows, index: Sequence[Rows | None]) -> Tensor:
            found = features.take(_stacked([each for each in index if each is not None]))
            return _mixed(found, torch.from_numpy(_stacked(shares)).to(found), size) if shares else found

        image = taken(self.image, [run.image_rows for run in rows])
        text = taken(self.text, [run.caption_rows for run in rows])
        if not with_reference or self.reference is None:
            return Batch(image, text, None, size)
        reference = taken(self.reference, [run.reference_rows for run in rows])
        return Batch(image, text, unit(reference), size)


def _stacked(each: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Give the array of one run as it is, those of several with a leading run dimension."""
    return each[0] if len(each) == 1 else np.stack(each)


def _mixed(features: Tensor, share: Tensor, batch_size: int) -> Tensor:
    """Mix each row (…, n, dim) with the next of its micro-batch, and give it unit length again."""
    rows = features.view(*features.shape[:-2], -1, batch_size, features.shape[-1])
    own = share.view(*share.shape[:-1], -1, batch_size, 1)
    return unit(torch.lerp(rows.roll(-1, dims=-2), rows, own)).flatten(-3, -2)


def embed(adapter: Adapter, features: Tensor, *, bf16: bool = False) -> Tensor:
    """Give unit-norm float32 embeddings (…, D) of float32 features (…, dim), or of token ids."""
    return unit(adapter(features, bf16=bf16))


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of some pairs in evaluation mode, float32."""

    image: Tensor
    """(n images, D), unit-norm."""
    captions: Tensor
    """(m captions, D), unit-norm, in the order of ``Pairs.caption_rows``."""
    mean_norm: dict[str, float]
    """Mean length of a row before it was normalised, by modality."""


@torch.inference_mode()
def embed_pairs(pair: AdapterPair, inputs: Inputs, pairs: Pairs, *, bf16: bool = False) -> Embedded:
    """Embed every image and every caption of ``pairs``, in blocks; products in float32 unless ``bf16``."""
    was_training = pair.training
    pair.eval()
    image, image_norm = embed_rows(pair.image, inputs.image, pairs.image_rows, bf16=bf16)
    captions, text_norm = embed_rows(pair.text, inputs.text, pairs.caption_rows, bf16=bf16)
    pair.train(was_training)
    return Embedded(image, captions, {"image": image_norm, "text": text_norm})


def embed_rows(
    adapter: Adapter, features: FeatureRows, rows: Rows, *, bf16: bool = False
) -> tuple[Tensor, float]:
    """Give unit-norm embeddings (len(rows), D) in blocks, and their mean norm before; set ``eval`` first."""
    raw = torch.cat([adapter(block, bf16=bf16).float() for block in features.blocks(rows)])
    return unit(raw), raw.norm(dim=1).mean().item()


def open_inputs(joined: PairedFeatures, *used: Pairs, device: torch.device, where: Where = "auto") -> Inputs:
    """Make the features of some pairs ready to be read."""

    def rows_of(features: FeatureSet, name: str) -> FeatureRows:
        rows = np.concatenate([getattr(pairs, name) for pairs in used])
        return FeatureRows(features, rows, device=device, where=where)

    reference = rows_of(joined.reference, "reference_rows") if joined.reference is not None else None
    return Inputs(rows_of(joined.image, "image_rows"), rows_of(joined.text, "caption_rows"), reference)


def embedding_views(embedded: Embedded, inputs: Inputs, pairs: Pairs) -> Views:
    """View embeddings; an image's first caption stands for its text, as one row a pair is compared."""
    text = embedded.captions[torch.from_numpy(pairs.caption_starts[:-1])]
    aligned = fuse(embedded.image, text)
    return {"image": embedded.image, "text": text, "aligned": aligned, **_reference_view(inputs, pairs)}


def feature_views(inputs: Inputs, pairs: Pairs) -> tuple[Views, Tensor | None]:
    """View raw features, ``aligned`` being their concatenation; and every caption's features (m, dim).

    Token ids are no features: then there is neither text nor aligned.
    """
    image = unit(inputs.image.take(pairs.image_rows))
    if inputs.text.holds_tokens:
        return {"image": image, **_reference_view(inputs, pairs)}, None
    captions = unit(inputs.text.take(pairs.caption_rows))
    text = captions[torch.from_numpy(pairs.caption_starts[:-1])]
    views = {
        "image": image,
        "text": text,
        "aligned": concatenate(image, text),
        **_reference_view(inputs, pairs),
    }
    return views, captions


def _reference_view(inputs: Inputs, pairs: Pairs) -> Views:
    if inputs.reference is None or pairs.reference_rows is None:
        return {}
    return {"reference": unit(inputs.reference.take(pairs.reference_rows))}
