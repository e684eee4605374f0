"""What training keeps of an epoch's embeddings, read back to be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from align_cache.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = NDArray[np.float64]

EMBEDDED = ("image", "text", "aligned")
"""What lies in the space of the embeddings."""


def load_snapshot(path: Path) -> dict[str, Matrix]:
    """Read one snapshot: float64 rows by modality, image and text at least.

    Raises
    ------
    RunError
        If it cannot be read, or its arrays do not fit each other.
    """
    from zipfile import BadZipFile

    import numpy as np

    names = (*EMBEDDED, "reference")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            rows = {name: arrays[name].astype(np.float64) for name in names if name in arrays}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise RunError(f"{path} cannot be read: {error}", hint="run align-cache fit again") from None
    shapes = {rows[name].shape for name in EMBEDDED if name in rows}
    shapes |= {(len(rows["reference"]), *shape[1:]) for shape in shapes if "reference" in rows}
    if not {"image", "text"} <= rows.keys() or len(shapes) != 1:
        raise RunError(
            f"{path}: expected as many image, text, aligned and reference rows, found {sorted(shapes)}"
        )
    return rows
