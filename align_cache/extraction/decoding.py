"""Images into batches of pixels: read and decoded once, in threads, prepared for every encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.corruption import Noise
from align_cache.corruption.images import corrupt_image
from align_cache.encoders.base import Preprocess
from align_cache.encoders.fast_images import BACKEND as FAST
from align_cache.encoders.fast_images import decode_fast, is_small, prepare_fast, resize
from align_cache.encoders.images import decode, prepare
from align_cache.errors import SampleError
from align_cache.sources.base import Source

if TYPE_CHECKING:
    import torch

Pixels: TypeAlias = NDArray[np.uint8]
_BATCHES_AHEAD = 3


@dataclass(frozen=True, slots=True)
class PixelBatch:
    """Up to ``batch_size`` consecutive images of a source."""

    rows: tuple[int, ...]
    """Rows of ``source.images`` that could be read."""
    squares: Mapping[Preprocess, Pixels]
    """uint8 (len(rows), 3, crop, crop), channels-last in memory, by what prepared it."""
    small: Mapping[int, Pixels]
    """By place in the batch, uint8 (3, height, width): what the device is to resize."""
    failed: tuple[tuple[str, SampleError], ...]
    """Id and error of each image that could not be read."""

    def on_device(self, preprocess: Preprocess, device: torch.device) -> torch.Tensor:
        """Return the pixels for one encoder, uint8 (len(rows), 3, crop, crop), on its device."""
        import torch

        squares = torch.from_numpy(self.squares[preprocess])
        small = [place for place, image in self.small.items() if is_small(image, preprocess)]
        if not small:
            return squares.to(device, non_blocking=True)
        if len(small) == len(self.rows):
            moved = torch.empty_like(squares, device=device)
        else:
            moved = squares.to(device, copy=True)
        for size in dict.fromkeys(self.small[place].shape for place in small):
            places = [place for place in small if self.small[place].shape == size]
            images = np.stack([self.small[place].transpose(1, 2, 0) for place in places])
            alike = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
            moved[places] = resize(alike, preprocess)
        return moved


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch that threads are filling."""

    rows: range
    squares: dict[Preprocess, Pixels]
    images: list[Future[Pixels | None]]
    """Each gives the image itself if its device is to resize it."""


class Decoder:
    """A pool of decoding threads over one source; a context manager.

    Decoding and resizing release the interpreter's lock, so that threads scale with the processors and no
    worker process can die or has to be fed.

    Parameters
    ----------
    source : Source
    preprocesses : sequence of Preprocess
        Of one backend all.
    workers : int
        Threads.
    batch_size : int
    noise : Noise, optional
        Put on every square.
    pinned : bool
        Whether batches lie in memory that CUDA copies from without waiting.
    """

    def __init__(
        self,
        source: Source,
        preprocesses: Sequence[Preprocess],
        *,
        workers: int,
        batch_size: int,
        noise: Noise | None = None,
        pinned: bool = False,
    ) -> None:
        self._source = source
        self._noise = noise
        self._preprocesses = tuple(dict.fromkeys(preprocesses))
        self._fast = self._preprocesses[0].backend == FAST
        self._batch_size = batch_size
        self._pinned = pinned
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def batches(self, rows: range) -> Iterator[PixelBatch]:
        """Give the images of ``rows`` in fixed batches, decoding a few batches ahead."""
        size = self._batch_size
        ahead: deque[_Begun] = deque()
        for start in range(0, len(rows), size):
            ahead.append(self._begin(rows[start : start + size]))
            if len(ahead) > _BATCHES_AHEAD:
                yield self._gather(ahead.popleft())
        while ahead:
            yield self._gather(ahead.popleft())

    def _begin(self, rows: range) -> _Begun:
        squares = {p: _empty_squares(len(rows), p.crop, pinned=self._pinned) for p in self._preprocesses}
        images = [self._pool.submit(self._fill, row, place, squares) for place, row in enumerate(rows)]
        return _Begun(rows, squares, images)

    def _fill(self, row: int, place: int, squares: Mapping[Preprocess, Pixels]) -> Pixels | None:
        """Put one image into its place of every square; return it if one is left to the device."""
        sample_id = self._source.images[row].sample_id
        data = self._source.read_image(row)
        if not self._fast:
            picture = decode(data, sample_id=sample_id)
            for preprocess, into in squares.items():
                into[place] = self._noisy(prepare(picture, preprocess), sample_id)
            return None
        image, left = decode_fast(data, sample_id=sample_id), False
        for preprocess, into in squares.items():
            if self._noise is None and is_small(image, preprocess):
                left = True
            else:
                into[place] = self._noisy(prepare_fast(image, preprocess), sample_id)
        return image if left else None

    def _noisy(self, square: Pixels, sample_id: str) -> Pixels:
        return square if self._noise is None else corrupt_image(square, self._noise, sample_id=sample_id)

    def _gather(self, begun: _Begun) -> PixelBatch:
        places: list[int] = []
        small: dict[int, Pixels] = {}
        failed: list[tuple[str, SampleError]] = []
        for place, (row, image) in enumerate(zip(begun.rows, begun.images, strict=True)):
            try:
                own = image.result()
            except SampleError as error:
                failed.append((self._source.images[row].sample_id, error))
                continue
            if own is not None:
                small[len(places)] = own
            places.append(place)
        squares = begun.squares
        if failed:
            squares = {p: pixels.transpose(0, 2, 3, 1)[places].transpose(0, 3, 1, 2)
                       for p, pixels in squares.items()}  # fmt: skip
        return PixelBatch(tuple(begun.rows[place] for place in places), squares, small, tuple(failed))


def _empty_squares(count: int, crop: int, *, pinned: bool) -> Pixels:
    shape = (count, crop, crop, 3)
    if not pinned:
        return np.empty(shape, dtype=np.uint8).transpose(0, 3, 1, 2)
    import torch

    memory: Pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
    return memory.transpose(0, 3, 1, 2)
