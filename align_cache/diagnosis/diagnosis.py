"""The whole look around: one section after the other, each on its own feet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from align_cache.diagnosis.packages import Extra, Package, look_at_packages
from align_cache.diagnosis.problems import Problem
from align_cache.errors import AlignCacheError
from align_cache.progress import Progress, no_progress
from align_cache.runtime import provenance

if TYPE_CHECKING:
    from align_cache.diagnosis.cache import Cache
    from align_cache.diagnosis.machine import Machine
    from align_cache.diagnosis.needs import Hub, Need

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What :func:`doctor` saw. A part is None where it could not be looked at; ``problems`` says why."""

    versions: Mapping[str, object]
    """Of align-cache, Python and the platform."""
    packages: tuple[Package, ...]
    extras: tuple[Extra, ...]
    machine: Machine | None
    hub: Hub | None
    encoders: tuple[Need, ...]
    datasets: tuple[Need, ...]
    cache: Cache | None
    runs: Mapping[str, int]
    """How many of the cache's runs are ``finished``, ``failed``, ``running``, ``stopped``, ``damaged``."""
    deep: bool
    """Whether every byte of the cache was read."""
    problems: tuple[Problem, ...]
    """The broken first."""

    @property
    def usable(self) -> bool:
        """Whether nothing that is there is broken."""
        return not any(problem.broken for problem in self.problems)

    def to_record(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {"usable": self.usable, **_plain(asdict(self))}


def doctor(
    *, cache_dir: Path = Path("cache"), deep: bool = False, progress: Progress = no_progress
) -> Diagnosis:
    """Look at all that align-cache works with, and say what is amiss and what mends it.

    Nothing is changed, fetched or encoded, and no model is loaded. It takes a few seconds, most of them for
    importing torch; ``deep`` takes as long as reading the cache.

    Parameters
    ----------
    cache_dir : Path
        The cache to look at; one that does not exist is no problem.
    deep : bool
        Whether to hold every byte of the feature sets, and the checkpoints of the runs, against their
        checksums; otherwise manifests, sizes and the structure of every file are checked.
    progress : callable, optional
        Makes a bar from a total, a description and a unit.

    Returns
    -------
    Diagnosis
    """
    look = _Look()
    packages, extras = look("the packages", look_at_packages) or ((), ())
    machine = look("this machine", _machine)
    hub, encoders, datasets = look("the hub", _hub) or (None, (), ())
    cache = look("the cache", lambda: _cache(cache_dir, deep, progress))
    runs = look("the runs", lambda: _runs(cache_dir, deep, progress)) or {}
    return Diagnosis(
        versions={key: value for key, value in provenance().items() if key != "packages"},
        packages=packages,
        extras=extras,
        machine=machine,
        hub=hub,
        encoders=encoders,
        datasets=datasets,
        cache=cache,
        runs=runs,
        deep=deep,
        problems=tuple(sorted(look.problems, key=lambda problem: not problem.broken)),
    )


class _Look:
    """Looks at one thing after the other and gathers what is amiss; what cannot be looked at is broken."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def __call__(self, what: str, section: Callable[[], tuple[_T, Sequence[Problem]]]) -> _T | None:
        try:
            seen, problems = section()
        except Exception as error:  # a broken package raises anything when it is imported
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            hint = error.hint if isinstance(error, AlignCacheError) else None
            mend = hint or "where a package is named: pip install --force-reinstall PACKAGE"
            self.problems.append(Problem(f"{what} cannot be looked at: {reason}", mend, broken=True))
            return None
        self.problems += problems
        return seen


def _machine() -> tuple[Machine, Sequence[Problem]]:
    from align_cache.diagnosis.machine import machine_problems, this_machine

    machine = this_machine()
    return machine, [*machine_problems(machine)]


def _hub() -> tuple[tuple[Hub, tuple[Need, ...], tuple[Need, ...]], Sequence[Problem]]:
    from align_cache.diagnosis.needs import dataset_needs, encoder_needs, hub_access, hub_problems

    hub, encoders, datasets = hub_access(), encoder_needs(), dataset_needs()
    return (hub, encoders, datasets), [*hub_problems(hub, (*encoders, *datasets))]


def _cache(cache_dir: Path, deep: bool, progress: Progress) -> tuple[Cache, Sequence[Problem]]:
    from align_cache.diagnosis.cache import look_at_cache

    return look_at_cache(cache_dir, deep=deep, progress=progress)


def _runs(cache_dir: Path, deep: bool, progress: Progress) -> tuple[Mapping[str, int], Sequence[Problem]]:
    from align_cache.diagnosis.runs import look_at_runs

    return look_at_runs(cache_dir, deep=deep, progress=progress)


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: paths as text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
