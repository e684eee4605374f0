"""Settings of an evaluation."""

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from align_cache.runtime import DeviceName
from align_cache.settings.base import Positive, Settings

MetricName = Literal[
    "all", "mutual_knn", "cka", "cka_rbf", "cknna", "cycle_knn", "lcs_knn", "edit_distance_knn", "svcca"
]
ProbeHead = Literal["linear", "mlp", "ridge", "knn"]


class EvalConfig(Settings):
    """One judgement of a run."""

    checkpoint: Literal["best", "last"] = "best"
    """Which epoch is judged: the one ``evaluation.select_by`` chose, or the last."""
    split: str | None = None
    """None: ``test`` where the dataset has one, else the images that validated."""
    limit: Annotated[int, Field(ge=2)] | None = None
    """At most so many images of it, drawn by the seed; None: all, up to 200,000, as all are compared with
    all."""
    metrics: tuple[MetricName, ...] = Field(default=("mutual_knn", "cka"), min_length=1)
    """Alignment metrics; ``all`` stands for every one."""
    k: Positive = 10
    """Neighbours of the metrics that compare neighbours."""
    permutations: Annotated[int, Field(ge=0)] = 0
    """Shuffles of the permutation null under each of the metrics; 0: none."""
    probe: str | None = None
    """Dataset whose classes are probed."""
    probe_image_encoder: str | None = None
    """Its image feature set, where it bears another name than the run's image encoder."""
    probe_reference: str | None = None
    """Its reference feature set, likewise."""
    probe_with_reference: bool = True
    """Whether the reference is probed too; without it there is nothing to be relative to."""
    probe_heads: tuple[ProbeHead, ...] = Field(default=("linear", "mlp"), min_length=1)
    """Classifiers of the probe: logistic regression, hidden layer, least squares, nearest neighbours."""
    probe_k: Positive = 20
    """Neighbours that vote in ``knn``."""
    zero_shot: str | None = None
    """Dataset whose test images are classified by its class prompts."""
    zero_shot_image_encoder: str | None = None
    """Its image feature set, where it bears another name than the run's image encoder."""
    zero_shot_text_encoder: str | None = None
    """Its prompts' feature set, where it bears another name than the run's text encoder."""
    classifier_hidden_dim: Positive | None = None
    """Width of the probe's hidden-layer head; None: as the run was configured."""
    downstream_batch_size: Positive | None = None
    """Batch of that head; None: as the run was configured."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the images that ``limit`` draws, of the shuffles, of the probe's held-out tenth and of its
    hidden-layer head."""
    device: DeviceName = "auto"
    """Where the adapters embed and the heads are fitted."""

    @field_validator("metrics")
    @classmethod
    def _spell_out_all(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        if "all" in metrics:
            return tuple(name for name in get_args(MetricName) if name != "all")
        return tuple(dict.fromkeys(metrics))

    @field_validator("probe_heads")
    @classmethod
    def _each_head_once(cls, heads: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(heads))
