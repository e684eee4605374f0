"""Noise on the square of pixels that a model is given, in five severities of four kinds.

Every strength is relative to the square, so that a severity means the same on 64 pixels and on 384. Chance
comes from the sample's id and the kind alone, and severities of a kind are nested: the same noise field is
scaled, the same covered square grows.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from align_cache.corruption import Noise
from align_cache.corruption.chance import generator_of

Pixels = NDArray[np.uint8]

STRENGTHS = {
    "gaussian": (0.04, 0.08, 0.14, 0.22, 0.34),
    "blur": (0.004, 0.008, 0.014, 0.022, 0.034),
    "occlusion": (0.05, 0.12, 0.22, 0.35, 0.50),
    "jpeg": (40, 20, 12, 7, 3),
}
"""By severity: standard deviation as a share of the range; standard deviation of the blur as a share of the
side; covered share of the area; quality that Pillow's encoder is given."""
_GREY = 128


def corrupt_image(pixels: Pixels, noise: Noise, *, sample_id: str) -> Pixels:
    """Return one prepared image with noise on it.

    Parameters
    ----------
    pixels : uint8 array, shape (3, side, side)
        Resized and cropped RGB; left as it is.
    noise : Noise
        Of a kind for images.
    sample_id : str
        Decides, with the kind, what is drawn.

    Returns
    -------
    uint8 array, shape (3, side, side), C-contiguous.
    """
    strength = STRENGTHS[noise.kind][int(noise.level) - 1]
    if noise.kind == "gaussian":
        return _gaussian(pixels, strength, generator_of(noise.kind, sample_id))
    if noise.kind == "occlusion":
        return _occluded(pixels, strength, generator_of(noise.kind, sample_id))
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    changed = _blurred(picture, strength) if noise.kind == "blur" else _recompressed(picture, int(strength))
    return np.ascontiguousarray(np.asarray(changed).transpose(2, 0, 1))


def _gaussian(pixels: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Add independent normal noise to every value; what leaves the range is cut."""
    field = generator.standard_normal(pixels.shape, dtype=np.float32)
    return np.rint(pixels + field * np.float32(255 * strength)).clip(0, 255).astype(np.uint8)


def _occluded(pixels: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Cover a square with grey; it lies inside at any size, and a larger one holds every smaller one."""
    side = pixels.shape[1]
    covered = round(side * strength**0.5)
    top, left = (int(place * (side - covered)) for place in generator.random(2))
    result = pixels.copy()
    result[:, top : top + covered, left : left + covered] = _GREY
    return result


def _blurred(picture: Image.Image, strength: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(strength * picture.width))


def _recompressed(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as compressed:
        compressed.load()
        return compressed
