"""A feature set again, of the same samples with noise on them: found in the cache, or extracted.

Whatever made the clean set is read back from its record and held against its key (:mod:`.origin`), so that a
noisy feature differs from the clean one by the noise alone.
"""

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from align_cache.corruption import Noise
from align_cache.encoders.base import EncoderRequest
from align_cache.errors import AlignCacheError, CacheError
from align_cache.extraction.extracting import extract
from align_cache.extraction.origin import recorded_origin, recorded_request, reopen_source, required_origin
from align_cache.extraction.vocabulary import counted_set
from align_cache.progress import Progress
from align_cache.runtime import DeviceName
from align_cache.settings import ExtractConfig
from align_cache.sources.assembly import LOCAL
from align_cache.store import FeatureSet, find, is_complete
from align_cache.store.catalog import StoredSet
from align_cache.store.layout import differences, feature_set_folder

_PART_OF_A_DATASET = {f"dataset.{name}" for name in ("splits", "limit", "samples", "rows")}
"""What a variant of a part of a dataset may have otherwise than the set of the whole."""


def noisy_variant(
    clean: FeatureSet,
    noise: Noise,
    *,
    cache_dir: Path,
    sample_ids: Iterable[str],
    splits: tuple[str, ...] | None,
    device: DeviceName = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> FeatureSet:
    """Return the features of some samples with noise on them, by the very encoder that made the clean ones.

    Parameters
    ----------
    clean : FeatureSet
        Without noise.
    noise : Noise
        Of a kind for its modality.
    cache_dir : Path
    sample_ids : iterable of str
        Ids of the rows that are needed; a set in the cache that has all of them is used as it is.
    splits : tuple of str or None
        The splits that hold them, which is all that is extracted; None: the dataset as the clean set has it.
    device, workers, progress, on_note
        As :func:`~align_cache.extraction.extracting.extract` takes them.

    Returns
    -------
    FeatureSet
        Has a row for each of ``sample_ids``.

    Raises
    ------
    CacheError
        If the variant is not there and the clean set's data or encoder cannot be had again; the hint is the
        command that makes it.
    AlignCacheError
        As extraction raises it.
    """
    wanted = set(sample_ids)
    if (found := _in_cache(clean, noise, wanted, cache_dir)) is not None:
        return found
    (stored,) = find(cache_dir, dataset=clean.dataset, encoder=f"{clean.encoder}@{clean.key}")
    try:
        request = recorded_request(stored)
        samples = _images(stored, splits) if noise.modality == "image" else _captions(stored, splits)
        settings = samples | _as_the_clean_set(stored, request, cache_dir)
    except AlignCacheError as error:
        raise CacheError(
            f"{clean.name} with {noise} is not in {cache_dir} and cannot be extracted: {error.message}",
            hint=_command(stored, noise, splits),
        ) from None
    settings["image_noise" if noise.modality == "image" else "caption_noise"] = str(noise)
    config = ExtractConfig(**settings, device=device, workers=workers)
    (made,) = extract(config, cache_dir=cache_dir, progress=progress, on_note=on_note)
    return _checked(FeatureSet.open(made.folder), clean, wanted)


def without_noise(features: FeatureSet, cache_dir: Path) -> FeatureSet:
    """Return the clean set beside one with noise; a clean set is returned as it is.

    Raises
    ------
    CacheError
        If there is none.
    """
    if features.manifest.noise is None:
        return features
    identity = {**features.manifest.identity, "corruption": None}
    if is_complete(cache_dir, identity) is None:
        raise CacheError(
            f"the clean features beside {features.name} are not in {cache_dir}",
            hint="the extract command that made it makes them, without its noise",
        )
    return FeatureSet.open(feature_set_folder(cache_dir, identity))


def _in_cache(clean: FeatureSet, noise: Noise, wanted: set[str], cache_dir: Path) -> FeatureSet | None:
    """Return the first set that differs by the noise and by which part of the dataset it holds."""
    identity = {**clean.manifest.identity, "corruption": noise.identity()}
    for stored in find(cache_dir, dataset=clean.dataset, encoder=f"{clean.encoder}+{noise}"):
        differing = {path for path, *_ in differences(identity, stored.manifest.identity)}
        if differing <= _PART_OF_A_DATASET:
            features = FeatureSet.open(stored.folder)
            if wanted <= set(features.sample_ids.tolist()):
                return features
    return None


def _images(stored: StoredSet, splits: tuple[str, ...] | None) -> dict[str, Any]:
    """Say where the images come from, and which of them are needed."""
    origin, whole = required_origin(stored), stored.manifest.structure.dataset
    source = reopen_source(stored, origin).restricted(splits=whole.splits, limit=whole.limit)
    if splits is not None and whole.limit is not None:  # the first so many of all are fewer of some splits
        limit: int | None = len(source.restricted(splits=splits, limit=None).images)
    else:
        limit = whole.limit
    return {
        "dataset": origin.name,
        "data_dir": origin.data_dir,
        "revision": origin.revision,
        "options": origin.options,
        "name": whole.name,
        "split": splits or whole.splits,
        "limit": limit,
        "on_error": "skip" if stored.manifest.skipped else "fail",
    }


def _captions(stored: StoredSet, splits: tuple[str, ...] | None) -> dict[str, Any]:
    """Take the captions from the clean set itself; those of a part of a dataset are taken as they are."""
    whole = stored.manifest.structure.dataset
    is_part = whole.splits is not None or whole.limit is not None
    return {
        "dataset": whole.name,
        "captions_of": _full_name(stored),
        "split": None if is_part else splits,
    }


def _as_the_clean_set(stored: StoredSet, request: EncoderRequest, cache_dir: Path) -> dict[str, Any]:
    """Return the settings of the encoder, and how its features are computed and stored."""
    identity = stored.manifest.identity
    weights = {} if request.weights == "pretrained" else {request.name: request.weights}
    return {
        "encoders": (request.name,),
        "weights": weights,
        "tokenizer": request.tokenizer,
        "pooling": request.pooling,
        "max_length": request.max_length,
        "resize": request.resize,
        "decode": request.decode,
        "vocabulary": _counted_set(stored, cache_dir),
        "shard_rows": identity["storage"]["shard_rows"],
        **identity["compute"],
        **({"dtype": identity["storage"]["dtype"]} if identity["storage"]["normalised"] else {}),
    }


def _counted_set(stored: StoredSet, cache_dir: Path) -> str | None:
    """Name a set of the captions that the encoder's vocabulary was counted from; None where none was."""
    counted_from = (stored.manifest.identity["encoder"].get("tokenizer") or {}).get("counted_from")
    return None if counted_from is None else counted_set(cache_dir, counted_from)


def _full_name(stored: StoredSet) -> str:
    return f"{stored.manifest.dataset}/{stored.manifest.encoder}@{stored.manifest.key}"


def _checked(found: FeatureSet, clean: FeatureSet, wanted: set[str]) -> FeatureSet:
    if lacking := sorted(wanted - set(found.sample_ids.tolist())):
        raise CacheError(f"{found.name} lacks {len(lacking)} samples of {clean.name}, the first {lacking[0]}")
    return found


def _command(stored: StoredSet, noise: Noise, splits: tuple[str, ...] | None) -> str:
    """Spell the command that makes the variant, as far as it is known."""
    identity = stored.manifest.identity
    encoder = identity["encoder"]
    if encoder.get("imported"):
        return "noise on features needs no encoder: align-cache stress RUN --feature-noise gaussian"
    weights = encoder.get("weights")
    flags = {
        "--dataset": [stored.manifest.dataset],
        "--data-dir": ["FOLDER"] if noise.modality == "image" and _is_kept_somewhere(stored) else [],
        "--captions-of": [stored.manifest.name] if noise.modality == "text" else [],
        "--encoder": [encoder["name"]],
        "--weights": [] if weights is None else [weights if weights.startswith("random:") else "FILE"],
        "--tokenizer": ["FOLDER"] if "sha256" in (encoder.get("tokenizer") or {}) else [],
        "--precision": [value for value in (identity["compute"].get("precision"),) if value],
        "--split": list(splits or ()),
        "--image-noise" if noise.modality == "image" else "--caption-noise": [str(noise)],
    }
    words = [word for flag, values in flags.items() for value in values for word in (flag, value)]
    return f"align-cache extract {shlex.join(words)}"


def _is_kept_somewhere(stored: StoredSet) -> bool:
    """Say whether the images may lie in a folder: they are not drawn, and not known to be the hub's."""
    origin = recorded_origin(stored)
    if origin is not None:
        return origin.data_dir is not None
    return stored.manifest.structure.dataset.revision == LOCAL
