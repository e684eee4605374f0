"""A training run as a whole, and the order in which its settings are resolved."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align_cache.config import Layer, file_layer, flag_layer, resolve, set_layer
from align_cache.runtime import DeviceName
from align_cache.settings.base import Settings
from align_cache.settings.training import (
    AdapterSettings,
    DataSettings,
    EvaluationSettings,
    LogSettings,
    LossSettings,
    OptimSettings,
)


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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the adapters' products and activations; weights, losses and the optimiser stay fp32. ``auto``: bf16
    where the hardware has fast bf16 products, else fp32; ``run.json`` says which it was."""
    cuda_graph: bool = False
    """Record the training step as a CUDA graph and replay it: for steps that are bound by launches. Not yet
    tried on a GPU, and therefore off."""

    @model_validator(mode="after")
    def _reference_for_ridge(self) -> "FitConfig":
        if self.adapter.type == "ridge" and self.data.reference is None:
            raise ValueError("adapter.type = ridge regresses onto data.reference: name one, or use cca")
        return self

    @model_validator(mode="after")
    def _nothing_waits_in_a_graph(self) -> "FitConfig":
        if self.cuda_graph and self.optim.ema_decay:
            raise ValueError("cuda_graph cannot record optim.ema_decay: its average waits for the device")
        return self

    @model_validator(mode="after")
    def _tokens_are_no_vectors(self) -> "FitConfig":
        if self.adapter.text_type is None:
            return self
        unfit = {"data.mixup": self.data.mixup, "loss.structure_weight": self.loss.structure_weight}
        unfit["cuda_graph"] = self.cuda_graph
        for name, value in unfit.items():
            if value:
                raise ValueError(f"{name} = {value} works on vectors, and adapter.text_type = "
                                 f"{self.adapter.text_type} reads token ids")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _reference_for_matching(self) -> "FitConfig":
        if self.loss.distribution_matching and self.data.reference is None:
            raise ValueError("loss.distribution_matching needs data.reference: name one, or set it to false")
        return self

    @property
    def siglip_bias(self) -> float:
        """Where the bias of ``siglip`` starts."""
        bias = self.loss.siglip_bias
        return -math.log(self.data.batch_size - 1) if bias is None else bias


LINEAR_PRESET: dict[str, Any] = {
    "adapter": {"dropout": 0.15},
    "loss": {"temperature": 0.15, "label_smoothing": 0.1, "variance_weight": 0.3},
    "optim": {"lr": 2e-4, "warmup_epochs": 2, "weight_decay": 0.005},
    "evaluation": {"downstream_batch_size": 256},
}
"""Where the first document's linear experiment differs from its MLP experiment, which is the default."""


def fit_config(
    *,
    file: Path | None = None,
    assignments: tuple[str, ...] = (),
    flags: Mapping[str, object] | None = None,
    shared: Mapping[str, Any] | None = None,
) -> FitConfig:
    """Resolve a training config: default < preset of the adapter < shared < file < ``--set`` < flag.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> from align_cache import fit_config
    >>> config = fit_config(assignments=("adapter.type=linear", "optim.epochs=3"))
    >>> config.optim.epochs, config.optim.lr  # the linear adapter's own learning rate
    (3, 0.0002)
    """
    given = [
        *([Layer("the sweep's settings", dict(shared))] if shared else []),
        *([file_layer(file)] if file else []),
        set_layer(assignments),
        flag_layer(flags or {}),
    ]
    adapters = [layer.values["adapter"] for layer in given if isinstance(layer.values.get("adapter"), dict)]
    types = [adapter["type"] for adapter in adapters if "type" in adapter]
    preset = [Layer("preset of the linear adapter", LINEAR_PRESET)] if types and types[-1] == "linear" else []
    return resolve(FitConfig, [*preset, *given])
