"""Settings of a training run, section by section."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align_cache.settings.base import Fraction, NonNegative, Positive, Settings

ClosedForm = Literal["ridge", "procrustes", "cca"]
AdapterType = Literal["linear", "mlp", "residual", "attention", ClosedForm]


class DataSettings(Settings):
    """Which features are paired, and how batches are made of them."""

    dataset: str = "flickr30k"
    """The dataset's name in the cache."""
    image_encoder: str = "resnet18"
    """Feature set of the images: an encoder's name, ``name+noise`` for a noisy variant, with ``@key8`` where
    several sets bear it."""
    text_encoder: str = "distilbert"
    """Feature set of the captions."""
    reference: str | None = "dinov2"
    """Feature set whose geometry is the target; None only without distribution matching."""
    num_samples: Positive | None = 12_800
    """At most so many training images, drawn by the seed; None: all. Left out beside ``train_fraction`` it is
    None."""
    train_fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Share of the training images that train, drawn by the seed, a smaller share inside a larger one; None:
    ``num_samples`` alone decides."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Pairs in a micro-batch, each of another image."""
    captions_per_image: Positive | Literal["all"] = 1
    """Captions of an image that one epoch visits, drawn anew each epoch, never two in one batch."""
    split: Literal["dataset", "fraction"] = "dataset"
    """``dataset``: its own train and val; ``fraction``: ``val_fraction`` of its train images, drawn once and
    the same in every run. A dataset that names no validation images is split by fraction."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the images that validate when split by fraction."""
    mixup: NonNegative = 0.0
    """Features of two pairs are mixed with a share drawn from Beta(mixup, mixup); 0: they are not."""
    curriculum_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs until all images train, those most alike first; 0: all do from the start."""
    curriculum_start: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the images that the curriculum begins with, in the second epoch (the first sees all)."""
    rows: Literal["auto", "memory", "mmap"] = "auto"
    """``memory``: features are copied once; ``mmap``: gathered from the map batch by batch;
    ``auto``: memory for each feature set whose rows take less than an eighth of the machine's memory."""
    order: Literal["shuffled", "blocks"] = "shuffled"
    """In which order an epoch visits its images: ``shuffled``: any; ``blocks``: runs of 4,096 neighbours are
    shuffled, and the images of 16 such runs among themselves, so that a set larger than memory is read in
    long stretches."""

    @model_validator(mode="before")
    @classmethod
    def _fraction_of_all(cls, values: Any) -> Any:
        """Let a fraction alone be what it says, where the default number would cut it."""
        if not isinstance(values, dict) or values.get("train_fraction") in (None, "none"):
            return values
        return {"num_samples": None, **values}


class AdapterSettings(Settings):
    """The trained head on each side."""

    type: AdapterType = "mlp"
    """Trained: ``linear``, ``mlp``, ``residual``, ``attention``; solved for: ``ridge``, ``procrustes``,
    ``cca``."""
    embed_dim: Positive | None = None
    """Width of the shared space; None: the reference's, or 768 without one. ``cca``, and ``procrustes``
    without a reference: how many components, None: as many as the narrower features have."""
    mlp_hidden_dims: tuple[Positive, ...] = (1024, 1024)
    """Hidden widths: of the ``mlp``, of each block of ``residual``, of each layer of ``attention``."""
    activation: Literal["gelu", "relu"] = "gelu"
    """After a hidden layer."""
    norm: Literal["layer", "rms"] | None = "layer"
    """Of each hidden layer or block, and of the output."""
    input_norm: Literal["layer", "standardize"] | None = None
    """Of the features; ``standardize``: by mean and deviation of the training features, which stay fixed."""
    dropout: Fraction = 0.2
    """After each hidden layer, or on the features (``linear``); on the token vectors of a text tower."""
    attention_tokens: Positive = 8
    """Tokens that ``attention`` makes of a feature vector."""
    attention_width: Positive = 256
    """Components of each."""
    attention_heads: Positive = 4
    """Heads, which share them."""
    text_type: Literal["lstm", "bow"] | None = None
    """Tower that is trained on token ids, before the head of the text side; None: text features are vectors
    already."""
    token_dim: Positive = 300
    """Width of its token vectors."""
    text_hidden: Positive = 512
    """Width of the state of ``lstm``, in each direction."""
    text_layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Layers of ``lstm``."""
    text_bidirectional: bool = False
    """Whether ``lstm`` reads captions from both ends."""
    text_pooling: Literal["last", "mean", "max"] = "last"
    """What ``lstm`` gives: the state after the last token, or the mean or the largest of all."""
    regularization: NonNegative | None = None
    """Of ``ridge`` and ``cca``: added to the variances, as a multiple of their mean; None: chosen on held-out
    images."""
    cca_power: NonNegative | None = None
    """Power of its correlation that scales each component of ``cca``; None: chosen on held-out images."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "AdapterSettings":
        if self.attention_width % self.attention_heads:
            raise ValueError(f"attention_width = {self.attention_width} is no multiple of "
                             f"attention_heads = {self.attention_heads}")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _towers_are_trained(self) -> "AdapterSettings":
        if self.text_type is not None and self.closed_form is not None:
            raise ValueError(f"type = {self.type} is solved for, and text_type = {self.text_type} is trained")
        return self

    @property
    def closed_form(self) -> ClosedForm | None:
        """The closed form that solves for the heads; None: they are trained."""
        match self.type:
            case "ridge" | "procrustes" | "cca" as solved:
                return solved
            case _:
                return None


class LossSettings(Settings):
    """The contrastive, the distribution and the structure term."""

    contrastive: Literal["infonce", "siglip", "ntxent", "hard_negative"] = "infonce"
    """What pulls pairs together."""
    temperature: Annotated[float, Field(ge=0.001, le=10.0)] = 0.2
    """Divides the cosine similarities; the start value when learned."""
    learn_temperature: bool = False
    """Train it, clamped to [0.01, 1]."""
    direction: Literal["both", "text_to_image", "image_to_text"] = "both"
    """Symmetric, or the one-directional loss of the second document (``text_to_image``)."""
    schedule: Literal["fixed", "variance", "entropy", "spread"] = "fixed"
    """How much each of both directions weighs: alike, or by the variance, softmax entropy or spread of its
    cosine similarities."""
    schedule_ema: Fraction = 0.9
    """Decay, by step, of the moving average that the schedule weighs by; 0: the step's own value."""
    label_smoothing: Fraction = 0.15
    """In the labels of both directions."""
    siglip_bias: float | None = None
    """Added to the similarities of ``siglip``; None: −log(batch size − 1), the odds of a pair in a batch."""
    hardness: NonNegative = 1.0
    """How much more near negatives weigh in ``hard_negative``; 0: as ``infonce``."""
    distribution_matching: bool = True
    """Whether a distribution term is part of the loss."""
    distribution: Literal["variance", "log_variance", "coral", "mmd"] = "variance"
    """What of the reference's distribution is matched."""
    variance_weight: NonNegative = 0.4
    """Weight of the distribution term, whichever it is."""
    structure_weight: NonNegative = 0.0
    """Weight of the similarity-structure term of both modalities; 0: left out."""
    structure_levels: Positive = 1
    """Steps of the walk among neighbours that it compares."""
    structure_temperature: Annotated[float, Field(gt=0.0)] = 0.2
    """Divides the similarities within a modality: the smaller, the more only the nearest rows count."""

    @model_validator(mode="after")
    def _learned_in_bounds(self) -> "LossSettings":
        if self.learn_temperature and not 0.01 <= self.temperature <= 1.0:
            raise ValueError(f"a learned temperature is held in [0.01, 1], and starts at {self.temperature}")
        return self

    @model_validator(mode="after")
    def _siglip_has_no_direction(self) -> "LossSettings":
        if self.contrastive == "siglip" and self.direction != "both":
            raise ValueError(f"siglip judges each image with each text, and direction = {self.direction}")
        return self

    @model_validator(mode="after")
    def _schedule_has_two_directions(self) -> "LossSettings":
        if self.schedule == "fixed":
            return self
        if self.direction != "both":
            raise ValueError(f"schedule = {self.schedule} weighs both directions, and direction = "
                             f"{self.direction} is one")  # fmt: skip
        if self.contrastive == "siglip":
            raise ValueError(f"schedule = {self.schedule} weighs two directions, and siglip is one sum")
        return self


class OptimSettings(Settings):
    """AdamW, linear warm-up, then a decay."""

    epochs: Positive = 20
    """Passes over the training images."""
    lr: Annotated[float, Field(gt=0.0)] = 1e-4
    """Peak learning rate."""
    min_lr: NonNegative = 1e-6
    """Where ``cosine`` and ``linear`` end; at most ``lr``."""
    warmup_epochs: NonNegative = 3
    """Epochs of linear warm-up, fractions allowed; fewer than ``epochs``."""
    decay: Literal["cosine", "linear", "step", "exponential", "constant"] = "cosine"
    """What the learning rate does after warm-up."""
    decay_epochs: Annotated[float, Field(gt=0.0)] = 10
    """Epochs in which ``step`` and ``exponential`` multiply it by ``decay_factor``, at once or little by
    little; fractions allowed."""
    decay_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """What they multiply it by."""
    num_cycles: Annotated[float, Field(gt=0.0)] = 0.5
    """Periods of ``cosine`` after warm-up: 0.5 falls once from ``lr`` to ``min_lr``."""
    weight_decay: NonNegative = 0.02
    """AdamW's; a learned temperature or bias is exempt."""
    scalar_lr_factor: Annotated[float, Field(gt=0.0)] = 100.0
    """What multiplies the learning rate of a learned temperature or bias: at the adapters' own rate a single
    number hardly moves in a few hundred steps."""
    gradient_accumulation_steps: Positive = 2
    """Micro-batches to one step of the optimiser."""
    clip_grad_norm: Annotated[float, Field(gt=0.0)] | None = 0.5
    """Bound on the norm of the gradient; None: no clipping."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of a moving average of the weights, which is then what is measured and saved; 0: none is kept."""
    early_stopping: Positive | None = None
    """Epochs without a better ``evaluation.select_by`` after which the run ends; None: it never does."""

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
    frequency: Annotated[int, Field(ge=0)] = 1
    """Epochs between measurements of alignment, retrieval and spread; 0: none. The best epoch is measured at
    the end in any case."""
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
    checkpoint_frequency: Annotated[int, Field(ge=0)] = 1
    """Epochs between checkpoints, from which a run resumes; 0: the weights alone, at the end."""
    project_name: str = "multimodal-alignment"
    """Recorded in ``run.json``."""
    save_dir: Path | None = None
    """Folder that holds the runs; None: ``runs`` in the cache."""
    tensorboard: bool = False
    """Write every logged number to ``tensorboard/`` in the run's folder too; an extra,
    ``pip install 'align-cache[tensorboard]'``."""
