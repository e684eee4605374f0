"""Settings of a stress test."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from align_cache.runtime import DeviceName
from align_cache.settings.base import Positive, Settings

Severity = Annotated[int, Field(ge=1, le=5)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]


class StressConfig(Settings):
    """How one run's retrieval is measured under noise."""

    image_noise: tuple[Literal["gaussian", "blur", "occlusion", "jpeg"], ...] = ()
    """Noise on the images themselves; each kind and severity is extracted once."""
    caption_noise: tuple[Literal["drop", "swap", "replace", "shuffle"], ...] = ()
    """Noise on the words of captions; each kind and rate is extracted once."""
    feature_noise: tuple[Literal["gaussian", "dropout"], ...] = ()
    """Noise on the features, which needs no extraction; both kinds where no noise is named at all."""
    feature_side: Literal["image", "text", "both"] = "both"
    """Whose features it is put on."""
    severities: tuple[Severity, ...] = Field(default=(1, 2, 3, 4, 5), min_length=1)
    """Levels of noise on images and on features."""
    rates: tuple[Rate, ...] = Field(default=(0.1, 0.3, 0.5), min_length=1)
    """Levels of noise on captions."""
    checkpoint: Literal["best", "last"] = "best"
    """Which epoch is judged: the one ``evaluation.select_by`` chose, or the last."""
    split: str | None = None
    """None: ``test`` where the dataset has one, else the images that validated."""
    device: DeviceName = "auto"
    """Where encoders and adapters run."""
    workers: Positive | None = None
    """Threads that decode images; None: one a processor."""

    @field_validator("image_noise", "caption_noise", "feature_noise")
    @classmethod
    def _each_once(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(kinds))

    @field_validator("severities", "rates")
    @classmethod
    def _in_order(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(levels)))
