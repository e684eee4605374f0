"""The downstream probe: how well a labelled dataset is classified from features and from embeddings.

Used while training (every so many epochs) and by an evaluation; both hand in the adapter and the sets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.adapters.pair import Adapter, unit
from align_cache.errors import PairingError
from align_cache.metrics.probe import knn_probe, linear_probe, mlp_probe, ridge_probe
from align_cache.metrics.probe_data import ProbeResult
from align_cache.probes.labelled import open_like, require_labelled
from align_cache.store import FeatureSet

_BLOCK_ROWS = 4096
_Judge = Callable[..., ProbeResult]


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

    @property
    def n_train(self) -> int:
        """Rows a classifier is trained on."""
        return int(np.count_nonzero(self.image.splits == "train"))


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
        If they are of another encoder, have no labels, train and test rows, or train rows of one class.
    """
    notes: list[str] = []

    def opened(own: FeatureSet, other: str | None) -> FeatureSet:
        found = open_like(cache_dir, dataset, own, other, notes)
        require_labelled(found, "train", "test", purpose="probed")
        _require_classes(found)
        return found

    probed = opened(image, image_encoder)
    target = opened(reference, reference_encoder) if reference is not None else None
    return ProbeSets(probed, target, tuple(notes))


def _require_classes(features: FeatureSet) -> None:
    assert features.labels is not None  # of a labelled set
    classes = np.unique(features.labels[features.splits == "train"])
    if len(classes) < 2:
        raise PairingError(
            f"{features.name} cannot be probed: its train rows are all of class {classes[0]}, "
            "a classifier needs two classes"
        )


def probe_run(
    adapter: Adapter,
    sets: ProbeSets,
    *,
    heads: Sequence[str] = ("linear", "mlp"),
    hidden_dim: int,
    batch_size: int,
    k: int = 20,
    seed: int,
    device: torch.device,
    on_row: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Probe image features, image embeddings and reference features.

    Parameters
    ----------
    heads : sequence of str
        Of ``linear``, ``mlp``, ``ridge``, ``knn``; docs/metrics.md says what each is.
    hidden_dim, batch_size : int
        Of ``mlp``.
    k : int
        Of ``knn``; at most ``sets.n_train``.
    seed : int
        Of the held-out tenth, and of ``mlp``.

    Returns
    -------
    dict of row name to a dict of head to :meth:`ProbeResult.to_record`.
    """
    judges: dict[str, _Judge] = {
        "linear": partial(linear_probe, seed=seed),
        "mlp": partial(mlp_probe, hidden_dim=hidden_dim, batch_size=batch_size, seed=seed),
        "ridge": partial(ridge_probe, seed=seed),
        "knn": partial(knn_probe, k=k),
    }
    asked = {head: judges[head] for head in heads}
    rows: dict[str, tuple[FeatureSet, Adapter | None]] = {
        "image_features": (sets.image, None),
        "image_embeddings": (sets.image, adapter),
    }
    if sets.reference is not None:
        rows["reference_features"] = (sets.reference, None)
    results: dict[str, Any] = {}
    for name, (features, head) in rows.items():
        (on_row or (lambda row: None))(name)
        results[name] = _probe(features, head, asked, device)
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
    features: FeatureSet, adapter: Adapter | None, judges: Mapping[str, _Judge], device: torch.device
) -> dict[str, Any]:
    assert features.labels is not None  # checked when the sets were opened
    assert features.splits is not None
    parts = []
    for split in ("train", "test"):
        rows = np.flatnonzero(features.splits == split)
        parts += [_rows(features, rows, adapter, device), torch.from_numpy(features.labels[rows])]
    return {head: judge(*parts).to_record() for head, judge in judges.items()}


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
