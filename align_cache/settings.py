"""Every setting of extraction, training and evaluation, with its default and its bounds.

The names and defaults of :class:`FitConfig` are those of the DINOv2 alignment project's ``EXPERIMENTS``;
where that document contradicts itself, ``configs/mlp-base.toml`` holds the other value.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from align_cache.config import Layer, file_layer, flag_layer, resolve, set_layer
from align_cache.runtime import DeviceName, Precision

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
AdapterType = Literal["linear", "mlp"]
MetricName = Literal[
    "all", "mutual_knn", "cka", "cka_rbf", "cknna", "cycle_knn", "lcs_knn", "edit_distance_knn", "svcca"
]

IDENTITY: dict[str, JsonValue] = {"role": "identity"}
PROVENANCE: dict[str, JsonValue] = {"role": "provenance"}


class Settings(BaseModel):
    """Frozen, and no key that is not declared. ``"none"`` is how TOML and flags say None."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: None if value == "none" else value for key, value in values.items()}


class ExtractConfig(Settings):
    """What ``align-cache extract`` does. Each field is marked: it decides the features, or it does not."""

    dataset: str = Field(json_schema_extra=IDENTITY)
    """A source: flickr30k, flickr8k, cifar10, folder, shapes, shapes10."""
    encoders: tuple[str, ...] = Field(min_length=1, json_schema_extra=IDENTITY)
    """Encoders to run, image and text mixed; each image is decoded once for all of them."""
    name: str | None = Field(default=None, json_schema_extra=IDENTITY)
    """What the dataset is called in the cache; None: the source's own name."""
    revision: str | None = Field(default=None, json_schema_extra=IDENTITY)
    """Commit of the hub's dataset; None: the newest, resolved once."""
    options: dict[str, Any] = Field(default={}, json_schema_extra=IDENTITY)
    """Settings of the source itself, such as ``count``, ``image_size`` and ``seed`` of ``shapes``."""
    split: tuple[str, ...] | None = Field(default=None, json_schema_extra=IDENTITY)
    """Only these splits; None: all."""
    limit: Positive | None = Field(default=None, json_schema_extra=IDENTITY)
    """At most so many images, their captions following."""
    weights: dict[str, str] = Field(default={}, json_schema_extra=IDENTITY)
    """Encoder to ``pretrained``, ``random[:seed]`` or a path; the key ``*`` stands for all others."""
    tokenizer: Path | None = Field(default=None, json_schema_extra=IDENTITY)
    """Folder or file with ``tokenizer.json`` or ``vocab.txt``; None: the encoder's own."""
    pooling: Literal["cls", "mean", "gap", "pooler"] | None = Field(default=None, json_schema_extra=IDENTITY)
    """None: the encoder's own."""
    max_length: Positive = Field(default=64, json_schema_extra=IDENTITY)
    """Tokens a caption is cut to."""
    resize: Literal["model", "squash"] = Field(default="model", json_schema_extra=IDENTITY)
    """``model``: the model's own preprocessing; ``squash``: straight to its input size."""
    precision: Precision = Field(default="fp32", json_schema_extra=IDENTITY)
    """Number format of the encoder's weights and activations."""
    dtype: Literal["float16", "float32"] = Field(default="float16", json_schema_extra=IDENTITY)
    """Number format of the stored features."""
    batch_size: Positive = Field(default=64, json_schema_extra=IDENTITY)
    """Samples in one forward pass. Low-precision features depend on what shares a batch."""
    shard_rows: Positive = Field(default=1024, json_schema_extra=IDENTITY)
    """Samples in one file, the unit of resume."""
    data_dir: Path | None = Field(default=None, json_schema_extra=PROVENANCE)
    """The dataset on disk; None: the hub, or drawn."""
    device: DeviceName = Field(default="auto", json_schema_extra=PROVENANCE)
    """Where the encoders run."""
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(default=None, json_schema_extra=PROVENANCE)
    """Threads that decode images; None: one a processor."""
    on_error: Literal["fail", "skip"] = Field(default="fail", json_schema_extra=PROVENANCE)
    """What an unreadable image does: stop, naming it, or be left out and recorded."""
    overwrite: bool = Field(default=False, json_schema_extra=PROVENANCE)
    """Extract again what is already there."""

    @field_validator("encoders")
    @classmethod
    def _each_once(cls, encoders: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, count in Counter(encoders).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} is named twice")
        return encoders

    @model_validator(mode="after")
    def _weights_name_encoders(self) -> "ExtractConfig":
        unknown = [name for name in self.weights if name != "*" and name not in self.encoders]
        if unknown:
            raise ValueError(f"weights are given for {unknown[0]}, which is not among the encoders "
                             f"({', '.join(self.encoders)})")  # fmt: skip
        return self

    def weights_of(self, encoder: str) -> str:
        """Return where the weights of one encoder come from."""
        return self.weights.get(encoder, self.weights.get("*", "pretrained"))


class DataSettings(Settings):
    """Which features are paired, and how batches are made of them."""

    dataset: str = "flickr30k"
    """The dataset's name in the cache."""
    image_encoder: str = "resnet18"
    """Feature set of the images: an encoder's name, with ``@key8`` where several sets bear it."""
    text_encoder: str = "distilbert"
    """Feature set of the captions."""
    reference: str | None = "dinov2"
    """Feature set whose geometry is the target; None only without distribution matching."""
    num_samples: Positive | None = 12_800
    """At most so many training images, drawn by the seed; None: all."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Pairs in a micro-batch, each of another image."""
    captions_per_image: Positive | Literal["all"] = 1
    """Captions of an image that one epoch visits, drawn anew each epoch, never two in one batch."""
    split: Literal["dataset", "fraction"] = "dataset"
    """``dataset``: its own train and val; ``fraction``: ``val_fraction`` of its train images, drawn once and
    the same in every run. A dataset that names no validation images is split by fraction."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the images that validate when split by fraction."""
    rows: Literal["auto", "memory", "mmap"] = "auto"
    """``memory``: features are copied once; ``mmap``: gathered from the map batch by batch;
    ``auto``: memory for each feature set whose rows take less than an eighth of the machine's memory."""


class AdapterSettings(Settings):
    """The trained head on each side."""

    type: AdapterType = "mlp"
    """``linear`` or ``mlp``."""
    embed_dim: Positive | None = None
    """Width of the shared space; None: the reference's, or 768 without one."""
    mlp_hidden_dims: tuple[Positive, ...] = (1024, 1024)
    """Widths of the hidden layers."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Between hidden layers."""
    layer_norm: bool = True
    """LayerNorm after each hidden layer and after the last."""
    dropout: Fraction = 0.2
    """After each hidden layer (mlp) or on the features (linear)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""


class LossSettings(Settings):
    """The contrastive and the distribution term."""

    temperature: Annotated[float, Field(ge=0.001, le=10.0)] = 0.2
    """Divides the cosine similarities; the start value when learned."""
    learn_temperature: bool = False
    """Train it, clamped to [0.01, 1]."""
    direction: Literal["both", "text_to_image", "image_to_text"] = "both"
    """Symmetric, or the one-directional loss of the second document (``text_to_image``)."""
    label_smoothing: Fraction = 0.15
    """In the cross-entropy of both directions."""
    distribution_matching: bool = True
    """Whether the distribution term is part of the loss."""
    variance_weight: NonNegative = 0.4
    """Its weight."""

    @model_validator(mode="after")
    def _learned_in_bounds(self) -> "LossSettings":
        if self.learn_temperature and not 0.01 <= self.temperature <= 1.0:
            raise ValueError(f"a learned temperature is held in [0.01, 1], and starts at {self.temperature}")
        return self


class OptimSettings(Settings):
    """AdamW, linear warm-up, cosine decay."""

    epochs: Positive = 20
    """Passes over the training images."""
    lr: Annotated[float, Field(gt=0.0)] = 1e-4
    """Peak learning rate."""
    min_lr: NonNegative = 1e-6
    """Where the cosine ends; at most ``lr``."""
    warmup_epochs: NonNegative = 3
    """Epochs of linear warm-up, fractions allowed; fewer than ``epochs``."""
    num_cycles: Annotated[float, Field(gt=0.0)] = 0.5
    """Cosine periods after warm-up: 0.5 falls once from ``lr`` to ``min_lr``."""
    weight_decay: NonNegative = 0.02
    """AdamW's; a learned temperature is exempt."""
    gradient_accumulation_steps: Positive = 2
    """Micro-batches to one step of the optimiser."""
    clip_grad_norm: Annotated[float, Field(gt=0.0)] | None = 0.5
    """Bound on the norm of the gradient; None: no clipping."""

    @model_validator(mode="after")
    def _ordered(self) -> "OptimSettings":
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr = {self.min_lr} is above lr = {self.lr}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs = {self.warmup_epochs} leaves none of {self.epochs} epochs")
        return self


class EvaluationSettings(Settings):
    """What is measured while training."""

    k: Positive = 10
    """Neighbours of mutual-kNN."""
    num_images: Positive = 2000
    """At most so many validation images are measured each epoch; the loss is of all whole batches."""
    probe: str | None = None
    """Dataset of the downstream probe during training; None: only ``eval --probe`` probes."""
    downstream_eval_frequency: Positive = 20
    """Epochs between probes."""
    downstream_batch_size: Positive = 128
    """Batch of the probe's hidden-layer head."""
    classifier_hidden_dim: Positive = 512
    """Width of that head."""
    select_by: Literal["val_loss", "mean_recall"] = "val_loss"
    """Which epoch is ``best``."""


class LogSettings(Settings):
    """What is written down, where, and how often."""

    log_frequency: Positive = 10
    """Optimiser steps between log lines."""
    viz_frequency: Annotated[int, Field(ge=0)] = 1
    """Epochs between snapshots of the embedding space, which the report draws; 0: none."""
    project_name: str = "multimodal-alignment"
    """Recorded in ``run.json``."""
    save_dir: Path | None = None
    """Folder that holds the runs; None: ``runs`` in the cache."""


class FitConfig(Settings):
    """One training run."""

    data: DataSettings = DataSettings()
    adapter: AdapterSettings = AdapterSettings()
    loss: LossSettings = LossSettings()
    optim: OptimSettings = OptimSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    log: LogSettings = LogSettings()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the initial weights, the subset, the batches, dropout and the probe."""
    device: DeviceName = "auto"
    """Where the adapters train; ``auto``: cuda, else mps, else cpu. One that is missing is refused."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: products under autocast; weights, losses and the optimiser stay fp32."""

    @model_validator(mode="after")
    def _reference_for_matching(self) -> "FitConfig":
        if self.loss.distribution_matching and self.data.reference is None:
            raise ValueError("loss.distribution_matching needs data.reference: name one, or set it to false")
        return self


LINEAR_PRESET: dict[str, Any] = {
    "adapter": {"dropout": 0.15},
    "loss": {"temperature": 0.15, "label_smoothing": 0.1, "variance_weight": 0.3},
    "optim": {"lr": 2e-4, "warmup_epochs": 2, "weight_decay": 0.005},
    "evaluation": {"downstream_batch_size": 256},
}
"""Where the first document's linear experiment differs from its MLP experiment, which is the default."""


class EvalConfig(Settings):
    """One judgement of a run."""

    checkpoint: Literal["best", "last"] = "best"
    """Which epoch is judged: the one ``evaluation.select_by`` chose, or the last."""
    split: str | None = None
    """None: ``test`` where the dataset has one, else the images that validated."""
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
    classifier_hidden_dim: Positive | None = None
    """Width of the probe's hidden-layer head; None: as the run was configured."""
    downstream_batch_size: Positive | None = None
    """Batch of that head; None: as the run was configured."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the shuffles, of the probe's held-out tenth and of its hidden-layer head."""
    device: DeviceName = "auto"
    """Where the adapters embed and the heads are fitted."""

    @field_validator("metrics")
    @classmethod
    def _spell_out_all(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        if "all" in metrics:
            return tuple(name for name in get_args(MetricName) if name != "all")
        return tuple(dict.fromkeys(metrics))


def fit_config(
    *, file: Path | None = None, assignments: tuple[str, ...] = (), flags: dict[str, object] | None = None
) -> FitConfig:
    """Resolve a training config: default < preset of the adapter < file < ``--set`` < flag.

    Raises
    ------
    ConfigError
    """
    given = [*([file_layer(file)] if file else []), set_layer(assignments), flag_layer(flags or {})]
    adapters = [layer.values["adapter"] for layer in given if isinstance(layer.values.get("adapter"), dict)]
    types = [adapter["type"] for adapter in adapters if "type" in adapter]
    preset = [Layer("preset of the linear adapter", LINEAR_PRESET)] if types and types[-1] == "linear" else []
    return resolve(FitConfig, [*preset, *given])
