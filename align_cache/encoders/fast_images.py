"""The faster way to the square that a model is given, ``decode = "fast"``.

simplejpeg decodes JPEGs, torch resizes in integers. The squares differ from Pillow's by two levels of 255
at most, which is enough to be a part of the identity. A file's content alone decides which decoder takes it.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.encoders.base import Preprocess
from align_cache.errors import SampleError
from align_cache.runtime import require_extra

if TYPE_CHECKING:
    import torch

Pixels: TypeAlias = NDArray[np.uint8]

BACKEND = "simplejpeg-torch-1"
"""Names the rules of this module in the identity; a change of what they give changes it."""
_JPEG_MARK = b"\xff\xd8"


def require_decoder() -> None:
    """Refuse to begin without simplejpeg.

    Raises
    ------
    UsageError
    """
    require_extra("simplejpeg", extra="fast", needed_for="--decode fast")


def decode_fast(data: bytes | Pixels, *, sample_id: str) -> Pixels:
    """Decode one image to upright 8-bit RGB.

    A JPEG of one or three colours that is not to be turned goes through simplejpeg; whatever else, and a
    JPEG that simplejpeg refuses, is Pillow's, by the rules of :func:`align_cache.encoders.images.decode`.

    Parameters
    ----------
    data : bytes or uint8 array, shape (height, width, 3)
    sample_id : str
        Named in the error.

    Returns
    -------
    uint8 array, shape (3, height, width): a view of (height, width, 3).

    Raises
    ------
    SampleError
    """
    from align_cache.encoders.images import decode

    if isinstance(data, bytes) and _is_plain_jpeg(data, sample_id):
        import simplejpeg

        with suppress(ValueError):  # what is damaged is judged by Pillow
            pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
            return pixels.transpose(2, 0, 1)
    return np.array(decode(data, sample_id=sample_id)).transpose(2, 0, 1)


def _is_plain_jpeg(data: bytes, sample_id: str) -> bool:
    """Tell, by the header, whether simplejpeg reads it as Pillow does, within the same limits."""
    from PIL import ExifTags, Image

    from align_cache.encoders.images import check_size

    if not data.startswith(_JPEG_MARK):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            check_size(image.size, sample_id)
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            return upright and image.format == "JPEG" and image.mode in ("RGB", "L")
    except SampleError:
        raise
    except Exception:  # Pillow's plugins raise many kinds on damaged files
        return False


def is_small(image: Pixels, preprocess: Preprocess) -> bool:
    """Tell whether an image is no larger than its square on both sides: then it is resized on the device."""
    return bool(max(image.shape[1:]) <= preprocess.crop)


def prepare_fast(image: Pixels, preprocess: Preprocess) -> Pixels:
    """Resize and crop one image on the CPU; see :func:`resize`.

    Parameters
    ----------
    image : uint8 array, shape (3, height, width)

    Returns
    -------
    uint8 array, shape (3, crop, crop).
    """
    import torch

    square: Pixels = resize(torch.from_numpy(image)[None], preprocess)[0].numpy()
    return square


def resize(images: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Resize and crop images of one size, antialiased, where they lie.

    On the CPU in integers, as Pillow does, but on the whole image before it is cropped; elsewhere in float32
    rounded once, which may differ by a level.

    Parameters
    ----------
    images : uint8 tensor, shape (n, 3, height, width)
        Channels-last is fastest.
    preprocess : Preprocess

    Returns
    -------
    uint8 tensor, shape (n, 3, crop, crop).
    """
    from torch.nn.functional import interpolate

    from align_cache.encoders.images import resized_size

    crop, (height, width) = preprocess.crop, images.shape[2:]
    if preprocess.resize is None:
        width = height = crop
    else:
        width, height = resized_size((width, height), preprocess.resize)
    on_cpu = images.device.type == "cpu"
    resized = interpolate(
        images if on_cpu else images.float(), (height, width), mode=preprocess.interpolation, antialias=True
    )
    top, left = (height - crop) // 2, (width - crop) // 2
    square = resized[:, :, top : top + crop, left : left + crop]
    return square if on_cpu else square.round().clamp(0, 255).byte()
