"""What a sweep tries: every point of a grid, and points drawn at random."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from align_cache.errors import ConfigError

Point: TypeAlias = dict[str, Any]
"""Setting (dotted) to value."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw a value, all alike."""
        return self.values[int(generator.integers(len(self.values)))]


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from ``low`` to ``high``, whole ones where both are; ``log``: even in the logarithm."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether whole numbers are drawn, ``high`` among them."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, generator: np.random.Generator) -> float:
        """Draw a number."""
        low, high = float(self.low), float(self.high)
        if self.whole:  # each whole number has a unit of the line
            low, high = low - 0.5, high + 0.5
        if self.log:
            value = math.exp(generator.uniform(math.log(low), math.log(high)))
        else:
            value = generator.uniform(low, high)
        return min(max(round(value), self.low), self.high) if self.whole else value


Space: TypeAlias = Mapping[str, Choice | Interval]


def grid_points(grid: Mapping[str, Any]) -> list[Point]:
    """List every combination of a grid, the last setting changing fastest; one empty point of no grid.

    Raises
    ------
    ConfigError
        If a setting has no list of values.
    """
    lists = dict(_leaves(grid, "grid"))
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid: {key} = {values!r}: expected a list of values")
    return [dict(zip(lists, point, strict=True)) for point in itertools.product(*lists.values())]


def read_space(given: Mapping[str, Any]) -> dict[str, Choice | Interval]:
    """Read the settings of ``[random]``: a list of values, or ``{low, high, log}``.

    Raises
    ------
    ConfigError
    """
    return {key: _read_domain(key, value) for key, value in _leaves(given, "random")}


def random_points(space: Space, n: int, *, seed: int) -> list[Point]:
    """Draw ``n`` points; the first ones are the same for every larger ``n``."""
    points = []
    for index in range(n):
        generator = np.random.default_rng([seed, index])
        points.append({key: domain.draw(generator) for key, domain in space.items()})
    return points


def _read_domain(key: str, value: Any) -> Choice | Interval:
    if isinstance(value, list) and value:
        return Choice(tuple(value))
    if isinstance(value, dict) and {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
        low, high, log = value["low"], value["high"], value.get("log", False)
        numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high))
        if numbers and low < high and (low > 0 or not log):
            return Interval(low, high, bool(log))
    raise ConfigError(
        f"random: {key} = {value!r}: expected a list of values, or low < high (both > 0 with log)",
        hint=f'for example "{key}" = {{ low = 1e-5, high = 1e-2, log = true }}',
    )


def _leaves(table: Mapping[str, Any], where: str) -> Sequence[tuple[str, Any]]:
    """Spell nested tables as dotted settings; a table with ``low`` is a value."""
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict) and "low" not in value and "high" not in value:
            found += [(f"{key}.{inner}", leaf) for inner, leaf in _leaves(value, where)]
        else:
            found.append((key, value))
    return found
