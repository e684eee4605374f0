"""What trains a pair of adapters, as its config describes it: loss, optimiser, learning rates."""

from typing import Any

import torch

from align_cache.adapters.pair import AdapterPair
from align_cache.losses import Balance, Objective
from align_cache.settings import FitConfig, LossSettings
from align_cache.training.member import Member, moving_average
from align_cache.training.schedule import learning_rates


def new_member(config: FitConfig, pair: AdapterPair, steps_per_epoch: int, device: torch.device) -> Member:
    """Return a pair of adapters with the loss, the optimiser and the learning rates of its config."""
    optim, loss = config.optim, config.loss
    heads = [*pair.image.parameters(), *pair.text.parameters()]
    groups: list[dict[str, Any]] = [{"params": heads, "weight_decay": optim.weight_decay, "lr_factor": 1.0}]
    scalars = [pair.log_temperature] if loss.learn_temperature else []
    scalars += [pair.bias] if pair.bias is not None else []
    if scalars:
        groups.append({"params": scalars, "weight_decay": 0.0, "lr_factor": optim.scalar_lr_factor})
    rates = learning_rates(
        optim.lr,
        warmup_steps=round(optim.warmup_epochs * steps_per_epoch),
        total_steps=optim.epochs * steps_per_epoch,
        decay=optim.decay,
        min_lr=optim.min_lr,
        num_cycles=optim.num_cycles,
        decay_steps=max(1, round(optim.decay_epochs * steps_per_epoch)),
        decay_factor=optim.decay_factor,
    )
    return Member(
        pair=pair,
        objective=_objective(loss, config.siglip_bias, minimised=config.adapter.closed_form is None),
        optimizer=torch.optim.AdamW(groups, lr=optim.lr, fused=device.type != "mps"),
        learning_rates=rates,
        clip_grad_norm=optim.clip_grad_norm,
        seed=config.seed,
        average=moving_average(pair, optim.ema_decay) if optim.ema_decay else None,
        balance=_balance(loss, device),
    )


def _objective(loss: LossSettings, siglip_bias: float, *, minimised: bool) -> Objective:
    """Give the loss; of adapters that do not minimise it, it measures the contrast alone."""
    matched = minimised and loss.distribution_matching
    return Objective(
        contrastive=loss.contrastive,
        direction=loss.direction,
        label_smoothing=loss.label_smoothing,
        bias=siglip_bias,
        hardness=loss.hardness,
        distribution=loss.distribution,
        variance_weight=loss.variance_weight if matched else None,
        structure_weight=(loss.structure_weight or None) if minimised else None,
        structure_levels=loss.structure_levels,
        structure_temperature=loss.structure_temperature,
    )


def _balance(loss: LossSettings, device: torch.device) -> Balance | None:
    return None if loss.schedule == "fixed" else Balance(loss.schedule, decay=loss.schedule_ema).to(device)
