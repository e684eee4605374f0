"""Captions that are in the cache already, as the text of a feature set: a source where nothing else is left.

What was brought in with ``align-cache import`` has no dataset on disk, but its captions can be encoded again.
"""

from pathlib import Path

from align_cache.errors import SampleError, UsageError
from align_cache.sources.base import CaptionSample, ImageData, ImageSample, Source
from align_cache.store import FeatureSet, open_feature_set


def open_captions(cache_dir: Path, name: str, *, setting: str) -> FeatureSet:
    """Open the text feature set ``dataset/encoder`` or ``dataset/encoder@key`` for its captions.

    Parameters
    ----------
    cache_dir : Path
    name : str
    setting : str
        What the set was named for; begins the message.

    Raises
    ------
    CacheError
        If there is no such set, or several.
    UsageError
        If it does not hold every caption as it is.
    """
    dataset, _, encoder = name.partition("/")
    features = open_feature_set(dataset, encoder, cache_dir=cache_dir)
    skipped, lacking = len(features.manifest.skipped), None
    if features.texts is None or features.group_ids is None:
        lacking = "no captions"
    elif skipped:
        lacking = f"not {skipped} of its captions"
    elif features.manifest.noise is not None:
        lacking = "captions with noise"
    if lacking is not None:
        raise UsageError(f"{setting}: {features.name} holds {lacking}, expected every caption of a dataset")
    return features


def captions_source(features: FeatureSet) -> Source:
    """Return the captions of a feature set from :func:`open_captions` as a source.

    Its images are names alone: the groups of the captions, in the order of their first caption. They serve to
    take a part of the captions by image.
    """
    texts, groups = features.texts, features.group_ids
    assert texts is not None  # checked by open_captions
    assert groups is not None
    splits = [None] * features.rows if features.splits is None else features.splits.tolist()
    labels = [None] * features.rows if features.labels is None else features.labels.tolist()
    captions = tuple(
        CaptionSample(sample_id, group_id, text, split=split or None, label=label)
        for sample_id, group_id, text, split, label in zip(
            features.sample_ids.tolist(), groups.tolist(), texts.tolist(), splits, labels, strict=True
        )
    )
    split_of: dict[str, str | None] = {}
    for caption in captions:
        split_of.setdefault(caption.group_id, caption.split)
    return Source(
        name=features.dataset,
        revision=features.manifest.structure.dataset.revision,
        images=tuple(ImageSample(name, fingerprint="", split=split) for name, split in split_of.items()),
        captions=captions,
        read_image=_no_image,
        label_names=features.label_names,
    )


def _no_image(index: int) -> ImageData:
    raise SampleError(f"image {index} is a name alone: the captions were taken from the cache")
