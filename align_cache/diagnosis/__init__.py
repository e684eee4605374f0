"""What works here and what does not: packages, machine, hub, cache, encoders and datasets.

Whatever may be broken is imported inside the look at it, so that one broken package hides nothing else.
"""

from align_cache.diagnosis.diagnosis import Diagnosis, doctor
from align_cache.diagnosis.problems import Problem

__all__ = ["Diagnosis", "Problem", "doctor"]
