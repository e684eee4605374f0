"""Which runs can be trained together, and how many of them a device holds."""

import torch

from align_cache.config import dotted
from align_cache.settings import FitConfig
from align_cache.training.assemble import Parts

_MEMORY_SHARE = 0.6
"""Of a GPU's free memory, for what a group of runs is estimated to take."""
_BY_RUN = frozenset(
    {"seed", "adapter.dropout", "evaluation.select_by"}
    | {f"data.{name}" for name in ("mixup", "curriculum_epochs", "curriculum_start")}
    | {f"loss.{name}" for name in ("temperature", "label_smoothing", "variance_weight", "hardness")}
    | {f"loss.{name}" for name in ("siglip_bias", "structure_temperature", "schedule_ema")}
    | {f"optim.{name}" for name in ("lr", "min_lr", "weight_decay", "warmup_epochs", "num_cycles")}
    | {f"optim.{name}" for name in ("decay", "decay_epochs", "decay_factor", "scalar_lr_factor")}
    | {f"optim.{name}" for name in ("clip_grad_norm", "ema_decay", "early_stopping")}
)
"""Settings in which runs that are trained together may differ."""


def shape_of(config: FitConfig, parts: Parts) -> tuple[object, ...]:
    """Return what two runs have to share to be trained together: all but the values that vary by run."""
    settings = {
        key: value
        for key, value in dotted(config.model_dump(mode="json")).items()
        if key not in _BY_RUN and not key.startswith("log.")
    }
    # A text tower is trained by itself: torch's LSTM knows no run dimension.
    alone = id(parts) if config.adapter.text_type is not None else None
    return (str(settings), alone, *parts.batches.shape, config.data.mixup > 0, config.optim.ema_decay > 0)


def bytes_of(config: FitConfig, parts: Parts) -> int:
    """Estimate what a run takes on its device: weights, gradients, two moments; activations of a step."""
    weights = sum(parameter.numel() for parameter in parts.member.pair.parameters())
    rows = parts.batches.batch_size * config.optim.gradient_accumulation_steps
    widths = sum(p.shape[0] for p in parts.member.pair.parameters() if p.dim() == 2)
    return 18 * weights + 24 * rows * widths


def group_size(config: FitConfig, parts: Parts) -> int:
    """Return how many such runs are trained together: on a GPU what fits, elsewhere one."""
    if parts.device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(parts.device)
    return max(1, int(_MEMORY_SHARE * free / bytes_of(config, parts)))
