"""Some pairs of a run as rows of one space, to be drawn: from a checkpoint, or as training kept them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from align_cache.adapters.run_adapters import load_pair
from align_cache.errors import RunError, UsageError
from align_cache.judging.run_features import choose_split, one_model, open_run_features
from align_cache.pairing.embedding import embed_pairs, embedding_views, feature_views, open_inputs
from align_cache.pairing.pairs import PairedFeatures, Pairs, Rows
from align_cache.results import Run
from align_cache.run_records import read_run
from align_cache.runtime import resolve_device
from align_cache.settings import fit_config
from align_cache.snapshots import load_snapshot

SpaceName: TypeAlias = Literal["embeddings", "features"]


@dataclass(frozen=True, slots=True)
class DrawnPairs:
    """Images and captions as rows of one space; row i of both is one pair."""

    image: NDArray[Any]
    """(n, dim)."""
    text: NDArray[Any]
    """(n, dim), of each image its first caption."""
    space: SpaceName
    split: str
    epoch: int | None
    """None of raw features, which no training changes."""


def judged_pairs(
    run: Run, *, cache_dir: Path, limit: int, split: str | None, space: SpaceName, seed: int, device: str
) -> DrawnPairs:
    """Draw pairs of a split at random, as the best checkpoint embeds them or as their encoders gave them.

    Raises
    ------
    AlignCacheError
        A :class:`UsageError` for features of two encoders, which have no common space.
    """
    trained = fit_config(file=run.folder / "config.toml")
    joined = open_run_features(run.info(), trained, cache_dir)
    if space == "features" and not one_model(joined):
        raise UsageError(
            f"the features of {joined.image.encoder} and {joined.text.encoder} have no space in common",
            hint="leave --features out: embeddings share a space",
        )
    name, pairs = choose_split(joined, trained, split)
    pairs = pairs.subset(_drawn(pairs.n_images, limit, seed)).with_first_captions()
    image, text, epoch = _rows(run, joined, pairs, space=space, device=device)
    return DrawnPairs(image, text, space, name, epoch)


def _rows(
    run: Run, joined: PairedFeatures, pairs: Pairs, *, space: SpaceName, device: str
) -> tuple[NDArray[Any], NDArray[Any], int | None]:
    where, epoch = resolve_device(device), None
    inputs = open_inputs(joined, pairs, device=where)
    if space == "features":
        views, _ = feature_views(inputs, pairs)
    else:
        pair, epoch = load_pair(run, "best")
        views = embedding_views(embed_pairs(pair.to(where), inputs, pairs), inputs, pairs)
    return views["image"].cpu().numpy(), views["text"].cpu().numpy(), epoch


def snapshot_pairs(run: Run, epoch: int, *, limit: int, seed: int) -> DrawnPairs:
    """Draw at random among the validation pairs that an epoch's snapshot holds.

    Raises
    ------
    RunError
        If the epoch was not kept, or its snapshot is damaged.
    """
    kept = read_run(run.folder).snapshots
    if epoch not in kept:
        known = f"those of {len(kept)} epochs, {min(kept)} to {max(kept)}" if kept else "none"
        raise RunError(f"{run.id} kept no embeddings of epoch {epoch}, but {known}",
                       hint="log.viz_frequency says how often fit keeps them")  # fmt: skip
    rows = load_snapshot(kept[epoch])
    drawn = _drawn(len(rows["image"]), limit, seed)
    return DrawnPairs(rows["image"][drawn], rows["text"][drawn], "embeddings", "val", epoch)


def _drawn(n: int, limit: int, seed: int) -> Rows:
    """Return at most ``limit`` of n positions; those of a smaller limit lie within those of a larger one."""
    return np.random.default_rng(seed).permutation(n)[:limit]
