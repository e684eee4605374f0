"""align-cache: frozen encoders run once; adapters trained, swept and judged on the cache.

    from align_cache import extract, fit, evaluate, report, FeatureSet

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from align_cache._version import __version__

if TYPE_CHECKING:
    from align_cache.diagnosis import doctor
    from align_cache.exporting import export
    from align_cache.extraction.external import import_features
    from align_cache.extraction.extracting import extract
    from align_cache.judging.comparison import Comparison, compare
    from align_cache.judging.evaluation import evaluate
    from align_cache.reporting import report
    from align_cache.results import Run, find_run
    from align_cache.settings import (
        EvalConfig,
        ExtractConfig,
        FitConfig,
        StressConfig,
        StudyConfig,
        SweepConfig,
        fit_config,
        study_config,
        sweep_config,
    )
    from align_cache.store import FeatureSet, open_feature_set
    from align_cache.studies.stressing import stress
    from align_cache.studies.studying import study
    from align_cache.sweeps.sweeping import sweep
    from align_cache.training.fitting import fit, resume_fit
    from align_cache.use.model import AlignedModel
    from align_cache.use.pictures import collect_pictures
    from align_cache.use.searching import search
    from align_cache.use.transformer import AdapterTransformer

_HOMES = {
    "AdapterTransformer": "use.transformer",
    "AlignedModel": "use.model",
    "Comparison": "judging.comparison",
    "EvalConfig": "settings",
    "ExtractConfig": "settings",
    "FeatureSet": "store",
    "FitConfig": "settings",
    "Run": "results",
    "StressConfig": "settings",
    "StudyConfig": "settings",
    "SweepConfig": "settings",
    "collect_pictures": "use.pictures",
    "compare": "judging.comparison",
    "doctor": "diagnosis",
    "evaluate": "judging.evaluation",
    "export": "exporting",
    "extract": "extraction.extracting",
    "find_run": "results",
    "fit": "training.fitting",
    "fit_config": "settings",
    "import_features": "extraction.external",
    "open_feature_set": "store",
    "report": "reporting",
    "resume_fit": "training.fitting",
    "search": "use.searching",
    "stress": "studies.stressing",
    "study": "studies.studying",
    "study_config": "settings",
    "sweep": "sweeps.sweeping",
    "sweep_config": "settings",
}

__all__ = [
    "AdapterTransformer",
    "AlignedModel",
    "Comparison",
    "EvalConfig",
    "ExtractConfig",
    "FeatureSet",
    "FitConfig",
    "Run",
    "StressConfig",
    "StudyConfig",
    "SweepConfig",
    "__version__",
    "collect_pictures",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "extract",
    "find_run",
    "fit",
    "fit_config",
    "import_features",
    "open_feature_set",
    "report",
    "resume_fit",
    "search",
    "stress",
    "study",
    "study_config",
    "sweep",
    "sweep_config",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'align_cache' has no attribute {name!r}")
    value = getattr(import_module(f"align_cache.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
