"""``cifar-10-batches-py``: pickles, read by an unpickler that builds arrays of numbers and nothing else."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from align_cache.errors import SourceError
from align_cache.sources.assembly import LOCAL
from align_cache.sources.base import ImageSample, Source

BATCHES_FOLDER = "cifar-10-batches-py"

_TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST_FILE = "test_batch"


def open_batches(folder: Path, label_names: Sequence[str]) -> Source:
    """Return CIFAR-10 from its six pickled batches, in file order.

    Parameters
    ----------
    folder : Path
        The folder with ``data_batch_1`` … ``data_batch_5`` and ``test_batch``.
    label_names : sequence of str

    Raises
    ------
    SourceError
        If a batch is missing, is no such pickle, or asks for anything but arrays.
    """
    train = [_read_batch(folder / name) for name in _TRAIN_FILES]
    splits = {"train": train, "test": [_read_batch(folder / _TEST_FILE)]}
    pixels = np.concatenate([rows for batches in splits.values() for rows, _ in batches])
    images: list[ImageSample] = []
    for split, batches in splits.items():
        labels = [label for _, labels in batches for label in labels]
        for row, label in enumerate(labels):
            fingerprint = xxhash.xxh3_64_hexdigest(pixels[len(images)].data)
            images.append(ImageSample(f"{split}/{row:05d}", fingerprint, label, split))

    def read_image(index: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(pixels[index].reshape(3, 32, 32).transpose(1, 2, 0))

    return Source(
        "cifar10", LOCAL, tuple(images), (), read_image, tuple(label_names), (f"read as {folder.name}",)
    )


def _read_batch(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Return pixels, uint8 (n, 3072), channel by channel, and n labels."""
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        pixels, labels = batch[b"data"], batch[b"labels"]
    except OSError as error:
        raise SourceError(f"cifar10: {path} cannot be read: {error.strerror}") from error
    except SourceError as error:
        raise SourceError(f"cifar10: {path}: {error.message}") from error
    except Exception as error:  # damaged pickles raise nearly anything
        raise SourceError(
            f"cifar10: {path} is not a CIFAR-10 batch: {type(error).__name__} {error}"
        ) from error
    if not (
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (len(labels), 3072)
    ):
        raise SourceError(
            f"cifar10: {path} does not hold one row of 3072 bytes for each of {len(labels)} labels"
        )
    if not all(isinstance(label, int) and 0 <= label <= 9 for label in labels):
        raise SourceError(f"cifar10: {path} holds labels outside 0 to 9")
    return pixels, labels


class _ArraysOnly(pickle.Unpickler):
    """Admits the three names that a pickled array of bytes needs, and answers them with its own functions."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global of the pickle.

        Raises
        ------
        SourceError
            For any other name; nothing is imported for it.
        """
        if (module, name) == ("numpy", "ndarray"):
            return _ARRAY
        if (module, name) == ("numpy", "dtype"):
            return _byte_type
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        raise SourceError(
            f"refused: the pickle asks for {module}.{name}, which a CIFAR-10 batch does not need"
        )


_ARRAY = object()
"""Stands for the class ``numpy.ndarray`` in a pickle, which only hands it on and never calls it."""


def _byte_type(code: object, *_: object) -> np.dtype[np.uint8]:
    if code not in (b"u1", "u1"):
        raise SourceError(f"refused: the pickle holds an array of {code!r}, wanted bytes (u1)")
    return np.dtype(np.uint8, copy=True)  # a copy, because the pickle goes on to set its state


def _empty_array(kind: object, *_: object) -> NDArray[np.uint8]:
    """Return the array that the pickle goes on to fill."""
    if kind is not _ARRAY:
        raise SourceError(f"refused: the pickle builds a {kind!r}, wanted a plain array")
    return np.empty(0, dtype=np.uint8)
