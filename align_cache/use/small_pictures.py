"""Pictures made small, as pages show them."""

from __future__ import annotations

import base64
import io

from align_cache.encoders.images import decode
from align_cache.errors import SampleError
from align_cache.sources.base import ImageData, Source

SIDE = 192
"""Longer side of a kept picture in pixels."""
_DRAWING = 96
"""A picture no larger than this is kept as it is, without loss."""


def thumbnails(source: Source, wanted: set[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return small pictures as data URLs by id, and what is wrong with those that are absent."""
    rows = {image.sample_id: row for row, image in enumerate(source.images) if image.sample_id in wanted}
    images, unreadable = {}, []
    for sample_id, row in sorted(rows.items()):
        try:
            images[sample_id] = data_url(source.read_image(row), sample_id)
        except SampleError as error:
            unreadable.append(error.message)
    absent = len(wanted) - len(rows)
    problems = [f"{absent} of {len(wanted)} images are not there"] if absent else []
    return images, (*problems, *unreadable)


def small_picture(data: ImageData, sample_id: str) -> tuple[str, bytes]:
    """Make an image small and return its kind, ``png`` or ``jpeg``, and its bytes.

    Raises
    ------
    SampleError
        If it cannot be decoded.
    """
    picture = decode(data, sample_id=sample_id)
    kind, settings = ("png", {}) if max(picture.size) <= _DRAWING else ("jpeg", {"quality": 82})
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return kind, buffer.getvalue()


def data_url(data: ImageData, sample_id: str) -> str:
    """Make an image small and return it as a data URL; raises SampleError where it cannot be decoded."""
    kind, content = small_picture(data, sample_id)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
