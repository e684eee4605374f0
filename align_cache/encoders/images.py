"""From an image file's bytes to the uint8 square that a model is given; Pillow only, no torch.

The rule of colour: every mode becomes 8-bit RGB as `docs/encoders.md` tables it. Transparent pixels
are laid on white; grey of 16 bits or of floats is brought to 8 bits by a factor that the mode alone decides,
never by the content of the picture.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from align_cache.encoders.base import Preprocess
from align_cache.errors import SampleError

MAX_PIXELS = 80_000_000
"""Larger images are refused before they are decoded: 240 MB of RGB, and just under where Pillow warns."""
MAX_ASPECT = 100
"""Longer side over shorter side; 1 x 3000 would be resized to 256 x 768000."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""Read whatever a file is called. Pillow knows more, and starts another program for one (EPS)."""

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode(data: bytes | NDArray[np.uint8], *, sample_id: str) -> Image.Image:
    """Decode one image to upright 8-bit RGB.

    Parameters
    ----------
    data : bytes or uint8 array, shape (height, width, 3)
        A file in one of ``FORMATS`` (the first frame is taken of an animation), or decoded RGB.
    sample_id : str
        Named in the error.

    Returns
    -------
    PIL.Image.Image of mode RGB, EXIF orientation applied.

    Raises
    ------
    SampleError
        If it is no image, cut short, over ``MAX_PIXELS`` or ``MAX_ASPECT``, or of an unknown mode.
    """
    if isinstance(data, np.ndarray):
        return _from_array(data, sample_id)
    if not data:
        raise SampleError(f"{sample_id}: the image file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(image.size, sample_id)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image, sample_id)
    except SampleError:
        raise
    except UnidentifiedImageError:
        raise SampleError(f"{sample_id}: {len(data)} bytes that are no {', '.join(FORMATS)} image") from None
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files
        raise SampleError(f"{sample_id}: the image cannot be decoded ({error})") from error


def upright_pixels(image: Image.Image, *, sample_id: str) -> NDArray[np.uint8]:
    """Return a picture that somebody has opened as :func:`decode` would have decoded it.

    Returns
    -------
    uint8 array, shape (height, width, 3), EXIF orientation applied; the picture itself stays as it is.

    Raises
    ------
    SampleError
        As :func:`decode`.
    """
    try:
        check_size(image.size, sample_id)
        return np.asarray(_to_rgb(ImageOps.exif_transpose(image), sample_id))
    except SampleError:
        raise
    except Exception as error:  # a file that is opened is not yet read
        raise SampleError(f"{sample_id}: the image cannot be decoded ({error})") from error


def prepare(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resize and crop one RGB image as a model wants it.

    Only the pixels of the crop are computed: its rectangle is carried back to the source and resized in one
    step, which gives what resizing everything and cropping gives (to one level of 255, overshoot apart).

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, from :func:`decode`.
    preprocess : Preprocess
        Sizes in pixels and the interpolation.

    Returns
    -------
    uint8 array, shape (3, crop, crop): a view of (crop, crop, 3), as models take it.
    """
    crop = preprocess.crop
    square = image.resize(
        (crop, crop), _RESAMPLING[preprocess.interpolation], box=_crop_box(image.size, preprocess)
    )
    return np.array(square).transpose(2, 0, 1)


def resized_size(size: tuple[int, int], resize: int) -> tuple[int, int]:
    """Return width and height once the shorter side has ``resize`` pixels.

    The longer side is cut to a whole number, as torchvision and transformers do.
    """
    shorter = min(size)
    return resize * size[0] // shorter, resize * size[1] // shorter


def _crop_box(size: tuple[int, int], preprocess: Preprocess) -> tuple[float, float, float, float]:
    """Return the part of the source, in its own pixels, that becomes the crop."""
    width, height = size
    if preprocess.resize is None:
        return (0.0, 0.0, float(width), float(height))
    resized_width, resized_height = resized_size(size, preprocess.resize)
    scale_x, scale_y = width / resized_width, height / resized_height
    left, top = (resized_width - preprocess.crop) // 2, (resized_height - preprocess.crop) // 2
    return (
        left * scale_x,
        top * scale_y,
        min((left + preprocess.crop) * scale_x, width),
        min((top + preprocess.crop) * scale_y, height),
    )


def _from_array(data: NDArray[np.uint8], sample_id: str) -> Image.Image:
    if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3 or data.size == 0:
        raise SampleError(
            f"{sample_id}: expected uint8 RGB (height, width, 3), found {data.dtype} {data.shape}"
        )
    check_size((data.shape[1], data.shape[0]), sample_id)
    return Image.fromarray(data)


def check_size(size: tuple[int, int], sample_id: str) -> None:
    """Refuse, by the header alone, what is over ``MAX_PIXELS`` or ``MAX_ASPECT``."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise SampleError(f"{sample_id}: {width} x {height} pixels, the limit is {MAX_PIXELS:,}")
    if max(size) > MAX_ASPECT * min(size):
        raise SampleError(
            f"{sample_id}: {width} x {height} pixels, sides may differ {MAX_ASPECT}-fold at most"
        )


def _to_rgb(image: Image.Image, sample_id: str) -> Image.Image:
    mode = image.mode
    if mode == "F":
        return _grey_to_rgb(np.asarray(image) * 255.0, "0 to 1", sample_id)
    if mode.startswith("I"):
        return _grey_to_rgb(np.asarray(image) / 257.0, "0 to 65535", sample_id)
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        transparent = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, transparent).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")


def _grey_to_rgb(grey: NDArray[np.floating], accepted: str, sample_id: str) -> Image.Image:
    """Round grey that was brought to 0 to 255 by its mode's own factor, and refuse what does not fit."""
    if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 255):
        raise SampleError(f"{sample_id}: greyscale values outside {accepted}: convert the image to 8 bits")
    return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
