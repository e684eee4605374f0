"""Noise on what an encoder is given: how it is named, and what of it goes into a feature set's identity.

``images`` puts it on pixels, ``captions`` on words. Both are pure: the same sample gets the same noise in any
shard, worker and order. docs/noise.md says what each kind does.
"""

from dataclasses import dataclass
from typing import Any, Literal

from align_cache.errors import UsageError

IMAGE_KINDS = ("gaussian", "blur", "occlusion", "jpeg")
"""Levels are severities, whole numbers from 1 to ``MAX_SEVERITY``."""
CAPTION_KINDS = ("drop", "swap", "replace", "shuffle")
"""Levels are rates, 0 < rate <= 1."""
MAX_SEVERITY = 5

_VERSION = 1
"""Of every rule in ``images`` and ``captions``; a change there changes it, and with it the cache key."""
_KNOWN = (
    f"images: {', '.join(f'{kind}:1' for kind in IMAGE_KINDS)}, up to :{MAX_SEVERITY}; "
    f"captions: {', '.join(f'{kind}:0.2' for kind in CAPTION_KINDS)}, above 0 and up to 1"
)


@dataclass(frozen=True, slots=True)
class Noise:
    """One kind of noise at one level; its text is ``gaussian:3``, ``drop:0.2``."""

    kind: str
    level: float
    """Severity of noise on images, rate of noise on captions."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.level:.15g}"

    @property
    def modality(self) -> Literal["image", "text"]:
        """What it is put on."""
        return "image" if self.kind in IMAGE_KINDS else "text"

    def identity(self) -> dict[str, Any]:
        """Return what stands for it in a feature set's identity."""
        level = {"severity": int(self.level)} if self.modality == "image" else {"rate": self.level}
        return {"kind": self.kind, **level, "version": _VERSION}


def parse_noise(text: str) -> Noise:
    """Read ``kind:level``.

    Parameters
    ----------
    text : str
        ``gaussian``, ``blur``, ``occlusion`` or ``jpeg`` and a severity, a whole number from 1 to 5;
        ``drop``, ``swap``, ``replace`` or ``shuffle`` and a rate, 0 < rate <= 1.

    Returns
    -------
    Noise

    Raises
    ------
    UsageError
        For another kind, and a level that is none or out of range.
    """
    kind, _, level = text.partition(":")
    if kind not in IMAGE_KINDS + CAPTION_KINDS:
        raise UsageError(f"there is no noise {text!r}", hint=f"there is, for {_KNOWN}")
    noise = Noise(kind, _level(kind, level))
    whole = noise.modality == "image"
    if not 0 < noise.level <= (MAX_SEVERITY if whole else 1):
        expected = f"a whole number from 1 to {MAX_SEVERITY}" if whole else "above 0 and up to 1"
        raise UsageError(f"noise {text!r}: the level of {kind} is {expected}")
    return noise


def _level(kind: str, text: str) -> float:
    """Read a level; what is no number gives 0, which is out of range."""
    try:
        return int(text) if kind in IMAGE_KINDS else float(text)
    except ValueError:
        return 0
