"""The downstream probe: how well a labelled dataset is classified from features and from embeddings.

Used while training (every so many epochs) and by an evaluation; both hand in the adapter and the sets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.adapters import Adapter, unit
from align_cache.errors import PairingError
from align_cache.metrics.probe import linear_probe, mlp_probe
from align_cache.store import FeatureSet, find, open_feature_set
from align_cache.store.layout import differences

_BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ProbeSets:
    """Feature sets of a labelled dataset, by the run's own encoders."""

    image: FeatureSet
    reference: FeatureSet | None
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The dataset."""
        return self.image.dataset


def open_probe_sets(
    cache_dir: Path,
    dataset: str,
    *,
    image: FeatureSet,
    reference: FeatureSet | None,
    image_encoder: str | None = None,
    reference_encoder: str | None = None,
) -> ProbeSets:
    """Find the probe dataset's features by the encoders that a run used.

    Parameters
    ----------
    image, reference : FeatureSet
        The run's own; the probe's must come from the same encoders with the same settings.
    image_encoder, reference_encoder : str, optional
        Names under which the probe's features lie where they differ from the run's. What cannot be
        compared (features brought in from elsewhere) is noted.

    Raises
    ------
    CacheError
        If they are missing or damaged.
    PairingError
        If they are of another encoder, or have no labels, train and test rows.
    """
    notes: list[str] = []

    def opened(own: FeatureSet, other: str | None) -> FeatureSet:
        found = open_feature_set(cache_dir, dataset, other or _same_encoder_name(cache_dir, dataset, own))
        _require_same_encoder(own, found, notes)
        _require_labels(found)
        return found

    probed = opened(image, image_encoder)
    target = opened(reference, reference_encoder) if reference is not None else None
    return ProbeSets(probed, target, tuple(notes))


def probe_run(
    adapter: Adapter,
    sets: ProbeSets,
    *,
    hidden_dim: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    on_row: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Probe image features, image embeddings and reference features with both heads.

    Returns
    -------
    dict of row name to ``{"linear": …, "mlp": …}``, each with accuracy and its 95% interval.
    """
    rows = {"image_features": (sets.image, None), "image_embeddings": (sets.image, adapter)}
    results: dict[str, Any] = {}
    for name, (features, head) in rows.items():
        (on_row or (lambda row: None))(name)
        results[name] = _probe(features, head, hidden_dim, batch_size, seed, device)
    if sets.reference is not None:
        (on_row or (lambda row: None))("reference_features")
        results["reference_features"] = _probe(sets.reference, None, hidden_dim, batch_size, seed, device)
    return results


def relative(rows: dict[str, Any]) -> dict[str, Any]:
    """Accuracy of each row divided by the reference's, by head; empty without a reference."""
    reference = rows.get("reference_features")
    if reference is None:
        return {}
    return {
        name: {
            head: _ratio(result["accuracy"], reference[head]["accuracy"]) for head, result in heads.items()
        }
        for name, heads in rows.items()
    }


def _ratio(accuracy: float, reference: float) -> float | None:
    return accuracy / reference if reference else None


def _probe(
    features: FeatureSet,
    adapter: Adapter | None,
    hidden_dim: int,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    assert features.labels is not None  # checked when the sets were opened
    assert features.splits is not None
    parts = []
    for split in ("train", "test"):
        rows = np.flatnonzero(features.splits == split)
        parts += [_rows(features, rows, adapter, device), torch.from_numpy(features.labels[rows])]
    linear = linear_probe(*parts, seed=seed)
    hidden = mlp_probe(*parts, hidden_dim=hidden_dim, batch_size=batch_size, seed=seed)
    return {"linear": linear.to_record(), "mlp": hidden.to_record()}


@torch.inference_mode()
def _rows(
    features: FeatureSet, rows: NDArray[np.int64], adapter: Adapter | None, device: torch.device
) -> torch.Tensor:
    """Give features, or their embeddings, float32 (n, dim) on the device."""
    blocks = [features.take(rows[i : i + _BLOCK_ROWS]) for i in range(0, len(rows), _BLOCK_ROWS)]
    if adapter is None:
        return torch.from_numpy(np.concatenate(blocks)).to(device).float()
    adapter.eval()
    return torch.cat([unit(adapter(torch.from_numpy(block).to(device).float())) for block in blocks])


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


def _require_labels(features: FeatureSet) -> None:
    splits = set() if features.splits is None else set(features.splits.tolist())
    if features.labels is None or not {"train", "test"} <= splits:
        labels = "no labels" if features.labels is None else "labels"
        has = ", ".join(sorted(name for name in splits if name)) or "no splits"
        raise PairingError(f"{features.name} cannot be probed: it has {labels} and {has}; "
                           "labelled train and test rows are needed")  # fmt: skip
