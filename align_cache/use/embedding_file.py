"""Embeddings of pictures and sentences as one ``.npz`` file, rows beside what they are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import UsageError
from align_cache.files import publishing
from align_cache.progress import Progress, no_progress

if TYPE_CHECKING:
    from align_cache.use.model import AlignedModel


def embed_to_file(
    model: AlignedModel,
    path: Path,
    *,
    images: Sequence[Path] = (),
    texts: Sequence[str] = (),
    batch_size: int = 64,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, NDArray[Any]]:
    """Embed pictures and sentences, and publish their embeddings.

    Parameters
    ----------
    model : AlignedModel
    path : Path
        The file, ``.npz``; its folder is made where it is missing.
    images : sequence of Path
    texts : sequence of str
    batch_size : int
    overwrite : bool
        Whether a file that is there is replaced.
    progress : callable, optional

    Returns
    -------
    dict
        What was written, called as ``align-cache export`` calls it: ``image_sample_id``, the paths as given,
        and ``image_embeddings``, float32 (n, D), unit-norm rows; ``text_caption`` and ``text_embeddings``,
        float32 (m, D). What was not asked for is left out.

    Raises
    ------
    UsageError
        If there is nothing to embed, ``path`` is no ``.npz``, or there already.
    SampleError
        If a picture cannot be decoded; nothing is written.
    """
    check_target(path, overwrite=overwrite)
    if not images and not texts:
        raise UsageError(
            "nothing to embed", hint='name pictures, or sentences: --text "two dogs in the snow"'
        )
    arrays: dict[str, NDArray[Any]] = {}
    if images:
        arrays["image_sample_id"] = np.array([str(image) for image in images])
        arrays["image_embeddings"] = model.encode_image(images, batch_size=batch_size, progress=progress)
    if texts:
        arrays["text_caption"] = np.array(texts)
        arrays["text_embeddings"] = model.encode_text(texts, batch_size=batch_size, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    with publishing(path) as temporary, temporary.open("xb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type] # the stub takes each for its flag allow_pickle
    return arrays


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that is no ``.npz``, or there already."""
    if path.suffix != ".npz":
        raise UsageError(f"{path}: embeddings are written as .npz", hint=f"{path.with_suffix('.npz')}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already", hint="name another file, or add --overwrite")
