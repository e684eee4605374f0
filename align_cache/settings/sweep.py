"""Settings of a sweep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align_cache.config import Layer, file_layer, flag_layer, merge, resolve, set_layer
from align_cache.errors import ConfigError
from align_cache.settings.base import Positive, Settings


class SweepConfig(Settings):
    """Many training runs: what they share is a :class:`FitConfig`, what they differ in is tried."""

    name: str = Field(default="sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the sweep under ``sweeps`` in the cache; the file's name without its ending if absent."""
    rank_by: Literal["mean_recall", "val_loss"] = "mean_recall"
    """What the leaderboard is ordered by, at each run's best epoch."""
    jobs: Positive | None = None
    """Processes that train on a CPU; None: one a processor. They share the mapped features."""
    together: Positive | None = None
    """Runs of one shape that train in one pass; None: one on a CPU, as many as fit on a GPU."""
    sampler: Literal["random", "tpe"] = "random"
    """How the points of ``random`` are drawn; ``tpe`` (optuna) learns from the trials before."""
    trials: Annotated[int, Field(ge=0)] = 0
    """Points of ``random``."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of those points."""
    retry_failed: bool = False
    """Whether trials that failed before are trained again."""
    grid: dict[str, Any] = Field(default={})
    """Setting to the list of its values; every combination is tried."""
    random: dict[str, Any] = Field(default={})
    """Setting to a list of values, or to ``{low, high}`` with ``log = true`` for an even logarithm."""
    base: dict[str, Any] = Field(default={})
    """Settings that all runs share: those of ``align-cache fit``."""

    @model_validator(mode="after")
    def _something_to_try(self) -> "SweepConfig":
        if bool(self.random) != bool(self.trials):
            raise ValueError(
                f"{len(self.random)} settings to draw, and trials = {self.trials}: both or neither"
            )
        if self.sampler == "tpe" and self.grid:
            raise ValueError("tpe draws every setting that is tried: move those of grid to random, as lists")
        return self


def sweep_config(
    file: Path, *, assignments: tuple[str, ...] = (), flags: Mapping[str, object] | None = None
) -> SweepConfig:
    """Read a sweep: ``[sweep]``, ``[grid]``, ``[random]``, and what else a training config has.

    Parameters
    ----------
    assignments : tuple of str
        ``--set``: settings of the training runs.
    flags : mapping
        Settings of the sweep itself; None meaning not given.

    Raises
    ------
    ConfigError
    """
    values = dict(file_layer(file).values)
    own = {"name": file.stem, **own_table(values, "sweep"), "grid": values.pop("grid", {})}
    own["random"] = values.pop("random", {})
    base = merge(values, set_layer(assignments).values)
    return resolve(
        SweepConfig, [Layer(str(file), own), flag_layer(flags or {}), Layer(str(file), {"base": base})]
    )


def own_table(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Take a table out of the values of a file."""
    table = values.pop(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{name} = {table!r}: expected a table, [{name}]")
    return table
