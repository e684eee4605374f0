"""Noise on features themselves, which needs no encoder: a row's own id decides what it gets.

Severities are nested: one draw a row, scaled or thresholded.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_cache.corruption.chance import generator_of
from align_cache.errors import ShapeError, UsageError

STRENGTHS = {"gaussian": (0.25, 0.5, 1.0, 2.0, 4.0), "dropout": (0.1, 0.25, 0.5, 0.75, 0.9)}
"""By severity 1 to 5: length of the noise in lengths of the row; share of the components that become 0."""


def noisy_features(
    features: NDArray[np.floating[Any]], sample_ids: Sequence[str], *, kind: str, severity: int
) -> NDArray[np.float32]:
    """Put noise on unit-norm rows and give them unit length again.

    Parameters
    ----------
    features : float array, shape (n, dim)
        Unit-norm rows; left as they are.
    sample_ids : sequence of str, length n
        Each row's id, which alone decides, with the kind, what is drawn for it.
    kind : {"gaussian", "dropout"}
        ``gaussian`` adds σ / √dim times a standard normal vector, whose length is about σ: the cosine to the
        clean row is about 1 / √(1 + σ²). ``dropout`` sets each component to 0 with a probability; a row that
        would lose all that it has keeps one component.
    severity : int
        From 1 to 5; ``STRENGTHS`` holds σ and the probability.

    Returns
    -------
    float32 array, shape (n, dim), unit-norm

    Raises
    ------
    UsageError
        For another kind or severity.
    ShapeError
        If there is not one id for each row.
    """
    strengths = STRENGTHS.get(kind, ())
    if not 1 <= severity <= len(strengths):
        raise UsageError(f"there is no feature noise {kind}:{severity}",
                         hint=f"there are {', '.join(STRENGTHS)}, each from 1 to 5")  # fmt: skip
    if features.ndim != 2 or len(features) != len(sample_ids):
        raise ShapeError(f"features have shape {features.shape}, expected ({len(sample_ids)}, dim)")
    rows, strength = features.astype(np.float32), strengths[severity - 1]
    generators = (generator_of(kind, name) for name in sample_ids)
    changed = (_gaussian if kind == "gaussian" else _dropout)(rows, strength, generators)
    unit_rows: NDArray[np.float32] = changed / np.linalg.norm(changed, axis=1, keepdims=True)
    return unit_rows


def _gaussian(
    rows: NDArray[np.float32], strength: float, generators: Iterable[np.random.Generator]
) -> NDArray[np.float32]:
    noise = np.empty_like(rows)
    for row, generator in zip(noise, generators, strict=True):
        generator.standard_normal(dtype=np.float32, out=row)
    return rows + np.float32(strength / rows.shape[1] ** 0.5) * noise


def _dropout(
    rows: NDArray[np.float32], strength: float, generators: Iterable[np.random.Generator]
) -> NDArray[np.float32]:
    draws = np.empty_like(rows)
    for row, generator in zip(draws, generators, strict=True):
        generator.random(dtype=np.float32, out=row)
    # The last to go of what a row has stays: no row is left without direction.
    last = np.where(rows != 0, draws, -1).argmax(axis=1)
    draws[np.arange(len(rows)), last] = 1
    return np.where(draws >= strength, rows, np.float32(0))
