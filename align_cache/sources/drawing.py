"""Filled outlines on a small canvas, antialiased, in integers alone.

Coordinates are integers in units of 1/256 pixel and coverage is counted on an 8 x 8 grid inside each
pixel, so a drawing does not depend on the processor, the maths library or an imaging library. The one
use of floating point is the cosine behind a vertex, rounded to 1/256 pixel: two maths libraries differ
there only if they disagree across a rounding boundary, about one vertex in 10^11.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[int, int, int]
Canvas: TypeAlias = NDArray[np.uint8]
Contours: TypeAlias = tuple[NDArray[np.int64], ...]
"""Closed polygons, each (vertices, 2) in 1/256 pixel, x then y; inside is what an odd number encloses."""

UNIT = 256
"""Coordinate units in a pixel."""

_GRID = 8
"""Samples along each side of a pixel."""

_STEP = UNIT // _GRID

Points: TypeAlias = Sequence[tuple[float, float]]
"""A contour around the origin, at most 1 away from it, x to the right and y down."""


def _ellipse(radius: float = 1.0, *, vertices: int = 48) -> Points:
    return [_polar(radius, turn / vertices) for turn in range(vertices)]


def _polar(radius: float, turn: float) -> tuple[float, float]:
    """Return the point at ``turn`` (1 is a full circle) clockwise from the top."""
    return radius * math.sin(2 * math.pi * turn), -radius * math.cos(2 * math.pi * turn)


def _regular(vertices: int, *, start: float = 0.0) -> Points:
    return [_polar(1.0, start + i / vertices) for i in range(vertices)]


def _star() -> Points:
    return [_polar(1.0 if i % 2 == 0 else 0.42, i / 10) for i in range(10)]


def _cross() -> Points:
    arm, half = 0.94, 0.3
    corner = [(-half, -arm), (half, -arm), (half, -half), (arm, -half)]
    return [_quarter_turns(point, turns) for turns in range(4) for point in corner[1:]]


def _quarter_turns(point: tuple[float, float], turns: int) -> tuple[float, float]:
    x, y = point
    for _ in range(turns):
        x, y = -y, x
    return x, y


def _heart() -> Points:
    """Sample the usual sine heart, shrunk into the unit circle."""
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        x = 16 * math.sin(t) ** 3
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        points.append((x / 18.2, (y - 2.5) / 18.2))
    return points


def _crescent() -> Points:
    """Follow the outer arc from tip to tip and go back along an arc around a shifted centre."""
    tip, shift, pieces = 0.12, 0.38, 30
    tip_x, tip_y = _polar(1.0, tip)
    radius = math.hypot(tip_x, tip_y + shift)
    reach = math.atan2(tip_x, -tip_y - shift) / (2 * math.pi)
    outer = [_polar(1.0, tip + (1 - 2 * tip) * i / pieces) for i in range(pieces + 1)]
    inner = [_polar(radius, 1 - reach - (1 - 2 * reach) * i / pieces) for i in range(1, pieces)]
    return [_quarter_turns(point, 1) for point in [*outer, *((x, y - shift) for x, y in inner)]]


_OUTLINES: Mapping[str, Callable[[], Sequence[Points]]] = {
    "circle": lambda: [_ellipse()],
    "square": lambda: [_regular(4, start=1 / 8)],
    "triangle": lambda: [_regular(3)],
    "diamond": lambda: [[(0.0, -1.0), (0.58, 0.0), (0.0, 1.0), (-0.58, 0.0)]],
    "hexagon": lambda: [_regular(6, start=1 / 12)],
    "star": lambda: [_star()],
    "heart": lambda: [_heart()],
    "cross": lambda: [_cross()],
    "crescent": lambda: [_crescent()],
    "ring": lambda: [_ellipse(), _ellipse(0.56)],
}

SHAPES = tuple(_OUTLINES)


def outline(shape: str, *, x: float, y: float, radius: float, turn: float = 0.0) -> Contours:
    """Return a shape placed on the canvas.

    Parameters
    ----------
    shape : str
        One of ``SHAPES``.
    x, y, radius : float
        Centre and circumscribed radius, in pixels.
    turn : float
        Clockwise rotation; 1 is a full circle.
    """
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    contours = []
    for unit_x, unit_y in _unit_contours(shape):
        # Spelled out: a matrix product may fuse its additions, and then round differently elsewhere.
        placed = (
            x + radius * (unit_x * cosine - unit_y * sine),
            y + radius * (unit_x * sine + unit_y * cosine),
        )
        contours.append(np.rint(np.stack(placed, axis=1) * UNIT).astype(np.int64))
    return tuple(contours)


@functools.cache
def _unit_contours(shape: str) -> tuple[NDArray[np.float64], ...]:
    return tuple(np.array(points, dtype=np.float64).T for points in _OUTLINES[shape]())


def fill(canvas: Canvas, contours: Contours, colour: Colour) -> None:
    """Paint what the contours enclose, in place; edges are blended by coverage.

    Parameters
    ----------
    canvas : uint8 array, shape (height, width, 3)
    contours : Contours
        Parts outside the canvas are cut off.
    colour : (int, int, int)
    """
    height, width = canvas.shape[:2]
    every = np.concatenate(contours)
    left, top = (max(0, int(low) // UNIT) for low in every.min(axis=0))
    right, bottom = (
        min(limit, int(high) // UNIT + 1)
        for limit, high in zip((width, height), every.max(axis=0), strict=True)
    )
    if left >= right or top >= bottom:
        return
    origin = np.array((left, top), dtype=np.int64) * UNIT
    covered = coverage(
        tuple(contour - origin for contour in contours), height=bottom - top, width=right - left
    )
    share = covered[:, :, None]
    whole = _GRID * _GRID
    region = canvas[top:bottom, left:right]
    region[:] = (region * (whole - share) + np.array(colour, dtype=np.int32) * share + whole // 2) // whole


def coverage(contours: Contours, *, height: int, width: int) -> NDArray[np.int32]:
    """Count the samples of each pixel that lie inside, 0 to 64; int32 array, shape (height, width)."""
    rows, columns = height * _GRID, width * _GRID
    # A crossing of a contour toggles every sample to its right in that row; the last column takes the misses.
    toggles = np.zeros((rows, columns + 1), dtype=np.uint8)
    sample_y = np.arange(rows, dtype=np.int64) * _STEP + _STEP // 2
    start = np.concatenate(contours)
    end = np.concatenate([np.roll(contour, -1, axis=0) for contour in contours])
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    edge, row = np.nonzero((sample_y >= low[:, None]) & (sample_y < high[:, None]))
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    crossing_x = x0 - (x0 - x1) * (sample_y[row] - y0) // (y1 - y0)  # rounded up
    first = -((_STEP // 2 - crossing_x) // _STEP)  # the first sample at or right of the crossing
    np.bitwise_xor.at(toggles, (row, np.clip(first, 0, columns)), 1)
    inside = np.bitwise_xor.accumulate(toggles[:, :columns], axis=1)
    counts: NDArray[np.int32] = inside.reshape(height, _GRID, width, _GRID).sum(axis=(1, 3), dtype=np.int32)
    return counts
