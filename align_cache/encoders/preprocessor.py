"""What a model's ``preprocessor_config.json`` means in this project's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from align_cache.encoders.base import Preprocess
from align_cache.errors import EncoderError

_INTERPOLATION: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}


def read_preprocessor(
    settings: Mapping[str, Any], *, owner: str
) -> tuple[Preprocess, Sequence[float], Sequence[float]]:
    """Translate the settings of an image processor.

    Parameters
    ----------
    settings : mapping
        As in ``preprocessor_config.json``; the keys of every version of transformers so far.
    owner : str
        Named in the error.

    Returns
    -------
    (Preprocess, mean, std)
        Mean and std of the three channels on the 0 to 1 scale.

    Raises
    ------
    EncoderError
        For a step that cannot be said in these terms: another scale, another interpolation, no square.
    """
    interpolation = _INTERPOLATION.get(settings.get("resample", 2))
    if interpolation is None:
        raise EncoderError(
            f"{owner}: resampling {settings['resample']} is neither bilinear (2) nor bicubic (3)"
        )
    if abs(settings.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9 or not settings.get("do_resize", True):
        raise EncoderError(
            f"{owner}: images must be resized and scaled by 1/255, its image processor does otherwise"
        )
    resize, crop = _sizes(settings, owner)
    normalised = settings.get("do_normalize", True)
    mean = settings.get("image_mean", ()) if normalised else (0.0, 0.0, 0.0)
    std = settings.get("image_std", ()) if normalised else (1.0, 1.0, 1.0)
    if len(mean) != 3 or len(std) != 3:
        raise EncoderError(
            f"{owner}: image_mean and image_std must have three values each, found {mean} and {std}"
        )
    return Preprocess(resize, crop, interpolation), mean, std


def _sizes(settings: Mapping[str, Any], owner: str) -> tuple[int | None, int]:
    """Return the shorter side (None: squashed to the square) and the square's side."""
    size = settings.get("size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    if edge is not None and "crop_pct" in settings:
        # ConvNeXt: below 384 the shorter side is the crop over crop_pct; from there on the image is squashed.
        return (int(edge / settings["crop_pct"]) if edge < 384 else None), edge
    if settings.get("do_center_crop", "crop_size" in settings):
        return _resize_before(size, crop := _square(settings.get("crop_size"), owner), owner), crop
    if edge is not None:
        raise EncoderError(f"{owner}: its images keep their aspect and are not cropped; a square is needed")
    return None, _square(size, owner)


def _resize_before(size: object, crop: int, owner: str) -> int | None:
    """Return the shorter side that ``crop`` is cut from, None where a squashed square is kept whole."""
    if isinstance(size, dict) and "shortest_edge" not in size:
        if _square(size, owner) != crop:
            raise EncoderError(f"{owner}: images are squashed to {size} and cut to {crop}: not supported")
        return None
    edge = size["shortest_edge"] if isinstance(size, dict) else _square(size, owner)
    if edge < crop:
        raise EncoderError(f"{owner}: images of {edge} pixels would be padded to {crop}: not supported")
    return int(edge)


def _square(size: object, owner: str) -> int:
    """Read 224, or {"height": 224, "width": 224}."""
    if isinstance(size, dict) and size.get("height") == size.get("width"):
        size = size.get("height")
    if not isinstance(size, int):
        raise EncoderError(f"{owner}: expected one size in pixels for images, found {size!r}")
    return size
