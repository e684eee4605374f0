"""Images into batches of pixels: read and decoded once, in threads, prepared for every encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.encoders.base import Preprocess
from align_cache.encoders.images import decode, prepare
from align_cache.errors import SampleError
from align_cache.sources.base import Source

Pixels = NDArray[np.uint8]
_BATCHES_AHEAD = 3


@dataclass(frozen=True, slots=True)
class PixelBatch:
    """Up to ``batch_size`` consecutive images of a source."""

    rows: tuple[int, ...]
    """Rows of ``source.images`` that could be read."""
    pixels: dict[Preprocess, Pixels]
    """uint8 (len(rows), 3, crop, crop), by what prepared it."""
    failed: tuple[tuple[str, SampleError], ...]
    """Id and error of each image that could not be read."""


_Prepared: TypeAlias = "dict[Preprocess, Pixels] | SampleError"


class Decoder:
    """A pool of decoding threads over one source; a context manager.

    Pillow releases the interpreter's lock while it decodes and resizes, so that threads scale with the
    processors and no worker process can die or has to be fed.
    """

    def __init__(
        self, source: Source, preprocesses: Sequence[Preprocess], *, workers: int, batch_size: int
    ) -> None:
        self._source = source
        self._preprocesses = tuple(dict.fromkeys(preprocesses))
        self._batch_size = batch_size
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def batches(self, rows: range) -> Iterator[PixelBatch]:
        """Give the images of ``rows`` in fixed batches, decoding a few batches ahead."""
        size = self._batch_size
        spans = [rows[start : start + size] for start in range(0, len(rows), size)]
        ahead: deque[tuple[range, list[Future[_Prepared]]]] = deque()
        for span in spans:
            ahead.append((span, [self._pool.submit(self._prepare, row) for row in span]))
            if len(ahead) > _BATCHES_AHEAD:
                yield self._gather(*ahead.popleft())
        while ahead:
            yield self._gather(*ahead.popleft())

    def _prepare(self, row: int) -> _Prepared:
        sample_id = self._source.images[row].sample_id
        try:
            image = decode(self._source.read_image(row), sample_id=sample_id)
        except SampleError as error:
            return error
        return {preprocess: prepare(image, preprocess) for preprocess in self._preprocesses}

    def _gather(self, span: range, futures: list[Future[_Prepared]]) -> PixelBatch:
        rows: list[int] = []
        prepared: list[dict[Preprocess, Pixels]] = []
        failed: list[tuple[str, SampleError]] = []
        for row, future in zip(span, futures, strict=True):
            result = future.result()
            if isinstance(result, SampleError):
                failed.append((self._source.images[row].sample_id, result))
            else:
                rows.append(row)
                prepared.append(result)
        pixels = {p: np.stack([images[p] for images in prepared]) for p in self._preprocesses if prepared}
        return PixelBatch(tuple(rows), pixels, tuple(failed))
