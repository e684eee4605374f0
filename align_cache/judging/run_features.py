"""The features that a run was trained on, opened again to judge it."""

from pathlib import Path

from align_cache.errors import UsageError
from align_cache.pairing.pairs import PairedFeatures, Pairs, join, split_pairs
from align_cache.results import Record
from align_cache.settings import FitConfig
from align_cache.splits import canonical_split
from align_cache.store import FeatureSet, open_feature_set


def open_run_features(info: Record, trained: FitConfig, cache_dir: Path) -> PairedFeatures:
    """Open the very feature sets that the run was trained on."""

    def opened(role: str) -> FeatureSet | None:
        described = info[role]
        if described is None:
            return None
        return open_feature_set(
            trained.data.dataset, f"{described['encoder']}@{described['key8']}", cache_dir=cache_dir
        )

    image, text = opened("image"), opened("text")
    assert image is not None
    assert text is not None
    return join(image, text, opened("reference"))


def choose_split(joined: PairedFeatures, trained: FitConfig, split: str | None) -> tuple[str, Pairs]:
    """Return the split to judge on: the one asked for, test where there is one, else what validated."""
    wanted = canonical_split(split) if split else "test" if len(joined.images_of("test")) else "val"
    if wanted == "val":
        splits = split_pairs(
            joined,
            how=trained.data.split,
            val_fraction=trained.data.val_fraction,
            num_samples=trained.data.num_samples,
            seed=trained.seed,
        )
        return "val", splits.val
    rows = joined.images_of(wanted)
    if not len(rows):
        known = ", ".join(joined.split_names()) or "none"
        raise UsageError(f"{joined.image.dataset} has no {wanted} images; its splits: {known}")
    return wanted, joined.pairs.subset(rows)


def one_model(joined: PairedFeatures) -> bool:
    """Whether image and text are two towers of one model, whose features share a space.

    They bear one name, or are CLIP's, projected, from the same trained weights: untrained towers are drawn
    one by one, whatever their seed.
    """
    if joined.image.encoder == joined.text.encoder:
        return True
    image, text = (each.manifest.identity["encoder"] for each in (joined.image, joined.text))
    projected = image.get("pooling") == text.get("pooling") == "projection"
    return projected and not joined.image.untrained and image["weights"] == text["weights"]
