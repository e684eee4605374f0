"""From a training config to the parts of a run: data, batches, adapters, optimiser."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from align_cache.embedding import open_inputs
from align_cache.errors import ConfigError
from align_cache.losses import Objective
from align_cache.model import new_pair
from align_cache.pairs import Batches, PairedFeatures, Splits, join, split_pairs
from align_cache.probing import ProbeSets, open_probe_sets
from align_cache.runtime import resolve_device
from align_cache.schedule import warmup_cosine
from align_cache.settings import FitConfig
from align_cache.store import FeatureSet, open_feature_set
from align_cache.trainer import Trainer

_DEFAULT_EMBED_DIM = 768


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run works with."""

    device: torch.device
    joined: PairedFeatures
    splits: Splits
    batches: Batches
    embed_dim: int
    trainer: Trainer
    probe_sets: ProbeSets | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided on the way, for the user."""
        return (*self.joined.notes, *self.splits.notes, *self.batches.notes)

    @property
    def variance_weight(self) -> float | None:
        """Weight of the distribution term; None where it is off."""
        return self.trainer.objective.variance_weight


def assemble(config: FitConfig, cache_dir: Path, info: Mapping[str, Any] | None = None) -> Parts:
    """Open the data and build what is trained; every misfit is found here, before work begins.

    Parameters
    ----------
    config : FitConfig
    cache_dir : Path
        Holds the feature sets.
    info : mapping, optional
        ``run.json`` of a run to go on with, which must find the very feature sets it began with.

    Raises
    ------
    AlignCacheError
    """
    device = resolve_device(config.device)
    joined = _open(config, cache_dir, info)
    splits = _split(config, joined)
    embed_dim = _embed_dim(config, joined)
    _check_k(config.evaluation.k, min(splits.val.n_images, config.evaluation.num_images))
    batches = _batches(config, splits)
    probe_sets = _probe_sets(config, joined, cache_dir)
    trainer = _trainer(config, joined, splits, embed_dim, batches.steps_per_epoch, device)
    return Parts(device, joined, splits, batches, embed_dim, trainer, probe_sets)


def _trainer(
    config: FitConfig,
    joined: PairedFeatures,
    splits: Splits,
    embed_dim: int,
    steps_per_epoch: int,
    device: torch.device,
) -> Trainer:
    torch.manual_seed(config.seed)
    pair = new_pair(config, joined.image.dim, joined.text.dim, embed_dim).to(device)
    optim, loss = config.optim, config.loss
    heads = [*pair.image.parameters(), *pair.text.parameters()]
    groups: list[dict[str, Any]] = [{"params": heads, "weight_decay": optim.weight_decay}]
    if loss.learn_temperature:
        groups.append({"params": [pair.log_temperature], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, fused=device.type != "mps")
    scheduler = warmup_cosine(
        optimizer,
        warmup_steps=round(optim.warmup_epochs * steps_per_epoch),
        total_steps=optim.epochs * steps_per_epoch,
        min_lr=optim.min_lr,
        num_cycles=optim.num_cycles,
    )
    variance_weight = loss.variance_weight if loss.distribution_matching else None
    return Trainer(
        pair=pair,
        inputs=open_inputs(joined, splits.train, splits.val, device=device, where=config.data.rows),
        objective=Objective(loss.label_smoothing, loss.direction, variance_weight),
        optimizer=optimizer,
        scheduler=scheduler,
        clip_grad_norm=optim.clip_grad_norm,
        bf16=config.precision == "bf16",
    )


def _open(config: FitConfig, cache_dir: Path, info: Mapping[str, Any] | None) -> PairedFeatures:
    """Open and join the feature sets; a resumed run reads the very sets it began with."""

    def opened(encoder: str, role: str) -> FeatureSet:
        exact = f"{info[role]['encoder']}@{info[role]['key8']}" if info else encoder
        return open_feature_set(cache_dir, config.data.dataset, exact)

    data = config.data
    reference = opened(data.reference, "reference") if data.reference is not None else None
    return join(opened(data.image_encoder, "image"), opened(data.text_encoder, "text"), reference)


def _split(config: FitConfig, joined: PairedFeatures) -> Splits:
    data = config.data
    return split_pairs(
        joined, how=data.split, val_fraction=data.val_fraction, num_samples=data.num_samples, seed=config.seed
    )


def _batches(config: FitConfig, splits: Splits) -> Batches:
    return Batches(
        splits.train,
        batch_size=config.data.batch_size,
        accumulation=config.optim.gradient_accumulation_steps,
        captions_per_image=config.data.captions_per_image,
        seed=config.seed,
    )


def _probe_sets(config: FitConfig, joined: PairedFeatures, cache_dir: Path) -> ProbeSets | None:
    if config.evaluation.probe is None:
        return None
    return open_probe_sets(cache_dir, config.evaluation.probe, image=joined.image, reference=joined.reference)


def _embed_dim(config: FitConfig, joined: PairedFeatures) -> int:
    reference = joined.reference
    embed_dim = config.adapter.embed_dim or (reference.dim if reference is not None else _DEFAULT_EMBED_DIM)
    if config.loss.distribution_matching and reference is not None and embed_dim != reference.dim:
        raise ConfigError(
            f"adapter.embed_dim = {embed_dim}, and {reference.name} has {reference.dim} dimensions: "
            "their variances are matched one by one",
            hint="leave adapter.embed_dim out, or set loss.distribution_matching=false",
        )
    return embed_dim


def _check_k(k: int, n: int) -> None:
    if k >= n:
        raise ConfigError(f"evaluation.k = {k} neighbours, and only {n} images validate",
                          hint=f"set evaluation.k below {n}")  # fmt: skip
