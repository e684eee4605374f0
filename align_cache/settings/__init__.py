"""Every setting of extraction, training and evaluation, with its default and its bounds.

The names and defaults of :class:`FitConfig` are those of the DINOv2 alignment project's ``EXPERIMENTS``;
where that document contradicts itself, ``configs/mlp-base.toml`` holds the other value.
"""

from align_cache.settings.base import Settings
from align_cache.settings.extraction import IDENTITY, PROVENANCE, ExtractConfig
from align_cache.settings.fit import LINEAR_PRESET, FitConfig, fit_config
from align_cache.settings.judging import EvalConfig, MetricName, ProbeHead
from align_cache.settings.stress import StressConfig
from align_cache.settings.study import StudyConfig, StudyMetric, study_config
from align_cache.settings.sweep import SweepConfig, sweep_config
from align_cache.settings.training import (
    AdapterSettings,
    AdapterType,
    ClosedForm,
    DataSettings,
    EvaluationSettings,
    LogSettings,
    LossSettings,
    OptimSettings,
)

__all__ = [
    "IDENTITY",
    "LINEAR_PRESET",
    "PROVENANCE",
    "AdapterSettings",
    "AdapterType",
    "ClosedForm",
    "DataSettings",
    "EvalConfig",
    "EvaluationSettings",
    "ExtractConfig",
    "FitConfig",
    "LogSettings",
    "LossSettings",
    "MetricName",
    "OptimSettings",
    "ProbeHead",
    "Settings",
    "StressConfig",
    "StudyConfig",
    "StudyMetric",
    "SweepConfig",
    "fit_config",
    "study_config",
    "sweep_config",
]
