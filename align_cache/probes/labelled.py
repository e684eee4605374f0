"""Features of a labelled dataset that a run is judged on: found by the run's own encoders, and checked."""

from pathlib import Path

from align_cache.errors import PairingError
from align_cache.store import FeatureSet, find, open_feature_set
from align_cache.store.layout import differences


def open_like(
    cache_dir: Path, dataset: str, own: FeatureSet, encoder: str | None, notes: list[str]
) -> FeatureSet:
    """Open a dataset's features by the very encoder that made a run's features.

    Parameters
    ----------
    own : FeatureSet
        The run's.
    encoder : str or None
        The name under which the dataset's features lie; None: the name of the run's.
    notes : list of str
        Is told what cannot be compared: imported features do not say what made them.

    Raises
    ------
    CacheError
        If they are missing or damaged, or several sets answer to the name.
    PairingError
        If another encoder made them.
    """
    name = encoder or _same_encoder_name(cache_dir, dataset, own)
    found = open_feature_set(dataset, name, cache_dir=cache_dir)
    _require_same_encoder(own, found, notes)
    return found


def require_labelled(features: FeatureSet, *splits: str, purpose: str) -> None:
    """Refuse features without labels, or without rows in each of the splits, that are to be ``purpose``.

    Raises
    ------
    PairingError
    """
    there = set() if features.splits is None else set(features.splits.tolist())
    if features.labels is None or not set(splits) <= there:
        labels = "no labels" if features.labels is None else "labels"
        has = ", ".join(sorted(name for name in there if name)) or "no splits"
        raise PairingError(f"{features.name} cannot be {purpose}: it has {labels} and {has}; "
                           f"labelled {' and '.join(splits)} rows are needed")  # fmt: skip


def _same_encoder_name(cache_dir: Path, dataset: str, own: FeatureSet) -> str:
    """Name the dataset's only set of the run's very encoder, where others bear the encoder's name too."""
    wanted = own.manifest.identity["encoder"]
    same = [
        stored.manifest
        for stored in find(cache_dir, dataset=dataset, encoder=own.encoder)
        if not differences(wanted, stored.manifest.identity["encoder"])
    ]
    return f"{own.encoder}@{same[0].key}" if len(same) == 1 else own.encoder


def _require_same_encoder(own: FeatureSet, found: FeatureSet, notes: list[str]) -> None:
    if own.holds_tokens != found.holds_tokens:
        # The dims may agree, and imported features do not say what made them.
        raise PairingError(f"{found.name} holds {_content(found)}, and the run was trained on "
                           f"{_content(own)} ({own.name})")  # fmt: skip
    if own.dim != found.dim:
        raise PairingError(f"{found.name} has {found.dim} dimensions, and the run was trained on {own.dim} "
                           f"({own.name})")  # fmt: skip
    ours, theirs = ({k: v for k, v in features.manifest.identity["encoder"].items() if k != "name"}
                    for features in (own, found))  # fmt: skip
    if ours.get("imported") or theirs.get("imported"):
        if own.key != found.key:
            notes.append(
                f"{found.name} is taken to be of the same encoder as {own.name}: imported features do not say"
            )
        return
    differing = differences(ours, theirs)
    if differing:
        path, one, other = differing[0]
        raise PairingError(
            f"{found.name} is not of the encoder that made {own.name}: "
            f"{path} is {other!r} there and {one!r} here",
            hint=f"extract {found.dataset} with the settings of the run's features",
        )


def _content(features: FeatureSet) -> str:
    return "token ids" if features.holds_tokens else "features"
