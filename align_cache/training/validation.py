"""What is measured after each epoch, and what is kept of it."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align_cache.files import publish_bytes
from align_cache.metrics.retrieval import retrieval
from align_cache.metrics.similarity import pair_similarity
from align_cache.metrics.summary import margins, summarise
from align_cache.pairing.embedding import Embedded, Views
from align_cache.pairing.pairs import Pairs
from align_cache.results import Record

_SNAPSHOT_IMAGES = 500
_PART_IMAGES = 65_536
"""Validation images whose embeddings are held at once: 0.2 GB a view at 768 components."""


def in_parts(pairs: Pairs, *, at_least: int, batch_size: int, part_images: int = _PART_IMAGES) -> list[Pairs]:
    """Cut pairs into consecutive parts of whole batches; one that fills no batch is left out.

    Parameters
    ----------
    at_least : int
        Images that have to lie in the first part.
    batch_size : int
    part_images : int
        Images that a part holds, ``at_least`` and whole batches permitting. That few pairs are one part.
    """
    size = -(-max(part_images, at_least) // batch_size) * batch_size
    if pairs.n_images <= size:
        return [pairs]
    starts = range(0, pairs.n_images - batch_size + 1, size)
    return [pairs.subset(np.arange(start, min(start + size, pairs.n_images))) for start in starts]


def mean_of_parts(losses: Sequence[Mapping[str, float]], n_batches: Sequence[int]) -> dict[str, float]:
    """Mean validation losses over the batches of all parts; the share is that of the mean loss."""
    if len(losses) == 1:
        return dict(losses[0])

    def mean(name: str, weights: Sequence[float]) -> float:
        return float(np.average([loss[name] for loss in losses], weights=weights))

    by_loss = [loss["loss"] * n for loss, n in zip(losses, n_batches, strict=True)]
    means = {name: mean(name, n_batches) for name in losses[0]}
    return means | {"variance_share": mean("variance_share", by_loss)}


def measure(views: Views, embedded: Embedded, pairs: Pairs, *, k: int, limit: int) -> Record:
    """Summarise the first ``limit`` images; margins are kept as plain numbers here."""
    some = pairs.subset(np.arange(min(limit, pairs.n_images)))
    summary = summarise(
        {name: rows[: some.n_images] for name, rows in views.items()},
        captions=embedded.captions[: some.n_captions],
        caption_image=some.caption_image,
        k=k,
    )
    judged = margins(summary, summary) or {}
    plain = {metric: {"h1": both.h1.margin, "h2": both.h2.margin} for metric, both in judged.items()}
    return {**summary.record, "hypotheses": plain or None}


def recalls(embedded: Embedded, pairs: Pairs, *, limit: int) -> Record:
    """Measure retrieval alone, on the images that :func:`measure` looks at."""
    some = pairs.subset(np.arange(min(limit, pairs.n_images)))
    found = retrieval(
        embedded.image[: some.n_images], embedded.captions[: some.n_captions], some.caption_image
    )
    return found.to_record()


def similarity(views: Views, *, limit: int) -> Record:
    """Measure the cosines of pairs alone, on the images that :func:`measure` looks at."""
    return pair_similarity(views["image"][:limit], views["text"][:limit]).to_record()


def save_snapshot(folder: Path, epoch: int, views: Views, pairs: Pairs) -> None:
    """Keep the same few validation pairs at each epoch, for the report to draw."""
    chosen = np.random.default_rng(0).permutation(pairs.n_images)[:_SNAPSHOT_IMAGES]
    arrays = {
        name: rows[torch.from_numpy(chosen)].cpu().numpy().astype(np.float16) for name, rows in views.items()
    }
    buffer = BytesIO()
    np.savez(buffer, sample_id=pairs.sample_ids[chosen], **arrays)  # type: ignore[arg-type] # stubs: allow_pickle
    publish_bytes(folder / f"epoch-{epoch:04d}.npz", buffer.getvalue())


def selection_score(record: Mapping[str, Any], select_by: str) -> float:
    """Return what makes an epoch the best; larger is better."""
    if select_by == "val_loss":
        return -float(record["val"]["loss"])
    directions = record["retrieval"].values()
    return float(np.mean([direction[key] for direction in directions for key in ("r1", "r5", "r10")]))
