"""Settings of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from align_cache.config import Layer, dotted, file_layer, flag_layer, merge, resolve, set_layer
from align_cache.errors import ConfigError
from align_cache.settings.base import Positive, Settings
from align_cache.settings.sweep import SweepConfig, own_table

StudyMetric = Literal["mean_recall", "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"]


class StudyConfig(Settings):
    """One setting under question, at each of its levels, under some conditions, over several seeds."""

    name: str = Field(default="study", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the study under ``studies`` in the cache, and of its sweep; the file's name if absent."""
    factor: str
    """The setting under question: a key of the grid."""
    baseline: Any
    """The level that the others are compared with: one of the factor's values in the grid."""
    metrics: Annotated[tuple[StudyMetric, ...], Field(min_length=1)] = get_args(StudyMetric)
    """What is compared; the first one is what the study asks about."""
    split: str = "test"
    """On which the runs are judged."""
    jobs: Positive | None = None
    """Processes that train on a CPU; None: one a processor."""
    together: Positive | None = None
    """Runs of one shape that train in one pass; None: one on a CPU, as many as fit on a GPU."""
    retry_failed: bool = False
    """Whether runs that failed before are trained again."""
    grid: dict[str, Any]
    """Setting to the list of its values: the factor, ``seed``, and whatever else makes the conditions."""
    base: dict[str, Any] = Field(default={})
    """Settings that all runs share: those of ``align-cache fit``."""

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, metrics: tuple[StudyMetric, ...]) -> tuple[StudyMetric, ...]:
        return tuple(dict.fromkeys(metrics))

    @field_validator("grid")
    @classmethod
    def _dotted(cls, grid: dict[str, Any]) -> dict[str, Any]:
        flat = dotted(grid)
        for key, values in flat.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{key} = {values!r}: expected a list of values")
            if any(value in values[:place] for place, value in enumerate(values)):
                raise ValueError(f"{key} = {values!r}: expected each value once")
        return flat

    @model_validator(mode="after")
    def _something_to_compare(self) -> "StudyConfig":
        if self.factor == "seed":
            raise ValueError("factor = seed: the seeds are what a difference is judged by")
        for key in (self.factor, "seed"):
            if len(self.grid.get(key, [])) < 2:
                raise ValueError(f"grid: {key} = {self.grid.get(key, [])!r}: expected two values or more")
        if self.baseline not in self.levels:
            raise ValueError(f"baseline = {self.baseline!r}: expected one of {self.factor} = {self.levels!r}")
        return self

    @property
    def levels(self) -> list[Any]:
        """The values of the factor."""
        return list(self.grid[self.factor])

    @property
    def sweep(self) -> SweepConfig:
        """The sweep that trains the runs."""
        shared = {key: getattr(self, key) for key in ("name", "jobs", "together", "retry_failed")}
        return SweepConfig(grid=self.grid, base=self.base, **shared)


def study_config(
    file: Path, *, assignments: tuple[str, ...] = (), flags: Mapping[str, object] | None = None
) -> StudyConfig:
    """Read a study: ``[study]``, ``[grid]``, and what else a training config has.

    Parameters
    ----------
    assignments : tuple of str
        ``--set``: settings of the training runs.
    flags : mapping
        Settings of the study itself; None meaning not given.

    Raises
    ------
    ConfigError
    """
    values = dict(file_layer(file).values)
    if strange := [name for name in ("sweep", "random") if name in values]:
        raise ConfigError(f"{file}: [{strange[0]}] is for sweeps; a study has [study] and [grid]")
    own = {"name": file.stem, **own_table(values, "study"), "grid": own_table(values, "grid")}
    base = merge(values, set_layer(assignments).values)
    return resolve(
        StudyConfig, [Layer(str(file), own), flag_layer(flags or {}), Layer(str(file), {"base": base})]
    )
