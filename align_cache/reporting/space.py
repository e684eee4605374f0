"""The embedding space seen through one PCA basis that all epochs share.

Bases fitted epoch by epoch would flip and turn between pictures; one basis of all snapshots keeps every
motion real. Image, text and aligned embeddings lie in one space. The reference does not (it may have another
dimension): its own leading components are shown, turned as a rigid body onto the aligned points of the last
epoch, which changes none of its distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from align_cache.errors import RunError
from align_cache.run_records import RunRecords
from align_cache.snapshots import EMBEDDED, load_snapshot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = NDArray[np.float64]

COMPONENTS = 3
BASIS_SNAPSHOTS = 12
"""How many snapshots, evenly spread, the basis is fitted on: more change nothing that can be seen."""


@dataclass(frozen=True)
class Space:
    """Projected points of every snapshot epoch."""

    points: dict[int, dict[str, Matrix]]
    """Epoch to modality to (n, 3) coordinates; row i of all modalities is the same sample."""
    explained: tuple[float, ...]
    """Share of the pooled variance of image, text and aligned that each axis carries."""

    @property
    def box(self) -> tuple[Matrix, float]:
        """Centre (3,) and half side of a cube that holds every point of every epoch."""
        import numpy as np

        points = np.concatenate(
            [cloud for modalities in self.points.values() for cloud in modalities.values()]
        )
        low, high = points.min(axis=0), points.max(axis=0)
        return (low + high) / 2, max(float((high - low).max()) / 2, 1e-6)


def project(run: RunRecords) -> Space | None:
    """Project all snapshots of a run, or return None where it has none.

    Raises
    ------
    RunError
        If a snapshot lacks the image or text rows or differs in shape from the others.
    """
    if not run.snapshots:
        return None
    snapshots = {epoch: load_snapshot(path) for epoch, path in run.snapshots.items()}
    shapes = {rows["image"].shape for rows in snapshots.values()}
    if len(shapes) > 1:
        raise RunError(
            f"{run.folder / 'snapshots'}: expected one shape in all epochs, found {sorted(shapes)}"
        )
    mean, axes, explained = _basis(snapshots)
    points: dict[int, dict[str, Matrix]] = {
        epoch: {name: _rounded((rows[name] - mean) @ axes) for name in EMBEDDED if name in rows}
        for epoch, rows in snapshots.items()
    }
    _add_reference(points, snapshots)
    return Space(points, explained)


def _rounded(coordinates: Matrix) -> Matrix:
    """Drop the last digits: they depend on where an array lies in memory, and a picture must not."""
    return coordinates.round(6)


def _basis(snapshots: dict[int, dict[str, Matrix]]) -> tuple[Matrix, Matrix, tuple[float, ...]]:
    """Return mean (D,), axes (D, 3) and shares of variance of evenly chosen snapshots pooled."""
    import numpy as np

    chosen = thin(list(snapshots), BASIS_SNAPSHOTS)
    pooled = np.concatenate(
        [snapshots[epoch][name] for epoch in chosen for name in EMBEDDED if name in snapshots[epoch]]
    )
    mean = pooled.mean(axis=0)
    return mean, *principal_axes(pooled - mean)


def principal_axes(centred: Matrix) -> tuple[Matrix, tuple[float, ...]]:
    """Return the three leading axes (D, 3) of rows (n, D), heaviest weight positive, and their shares."""
    import numpy as np

    variances, vectors = np.linalg.eigh(centred.T @ centred)
    axes = np.zeros((centred.shape[1], COMPONENTS))
    leading = vectors[:, ::-1][:, :COMPONENTS]
    heaviest = np.abs(leading).argmax(axis=0)
    axes[:, : leading.shape[1]] = leading * np.sign(leading[heaviest, range(leading.shape[1])])
    total = max(float(variances.sum()), 1e-30)
    shares = [max(0.0, float(variance)) / total for variance in variances[::-1][:COMPONENTS]]
    return axes, tuple(shares)


def _add_reference(points: dict[int, dict[str, Matrix]], snapshots: dict[int, dict[str, Matrix]]) -> None:
    """Add the reference, the same in every epoch: its components turned onto the last aligned points."""
    import numpy as np

    last = max(points)
    reference, target = snapshots[last].get("reference"), points[last].get("aligned")
    if reference is None or target is None:
        return
    centred = reference - reference.mean(axis=0)
    own = centred @ principal_axes(centred)[0]
    left, _, right = np.linalg.svd(own.T @ (target - target.mean(axis=0)))
    turned = _rounded(own @ (left @ right) + target.mean(axis=0))
    for modalities in points.values():
        modalities["reference"] = turned


def thin(items: list[int], most: int) -> list[int]:
    """Return at most ``most`` of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    last = len(items) - 1
    return [items[round(step * last / (most - 1))] for step in range(most)]
