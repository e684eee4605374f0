"""Which packages are installed, held against what the installed align-cache says that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from align_cache.diagnosis.problems import Problem

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "align-cache"
_FOR_DEVELOPERS = ("dev", "docs")


@dataclass(frozen=True, slots=True)
class Package:
    """One package that is needed."""

    name: str
    wanted: str
    """The versions that will do, as pip writes them: ``>=2.0``; empty: any."""
    version: str | None
    """The installed one; None: it is not there."""
    fits: bool


@dataclass(frozen=True, slots=True)
class Extra:
    """Packages that one optional feature needs."""

    name: str
    packages: tuple[Package, ...]

    @property
    def present(self) -> bool:
        """Whether all of them are there in versions that will do."""
        return all(package.fits for package in self.packages)

    @property
    def command(self) -> str:
        """What installs them."""
        return f"pip install '{DISTRIBUTION}[{self.name}]'"


def look_at_packages() -> tuple[tuple[tuple[Package, ...], tuple[Extra, ...]], Sequence[Problem]]:
    """Return the packages that align-cache needs, its extras, and what is amiss; no package is imported."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        found = f"{DISTRIBUTION} is on the path and was not installed: what it needs is not known"
        return ((), ()), [Problem(found, "in its folder: pip install -e .", broken=True)]
    names = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
    packages = tuple(_package(each) for each in wanted if _applies(each, ""))
    extras = tuple(
        Extra(name, tuple(_package(each) for each in wanted if each.marker and _applies(each, name)))
        for name in sorted(names)
        if name not in _FOR_DEVELOPERS
    )
    return (packages, extras), [*_unfit(packages), *_unfit_extras(extras), *_conflicts(packages)]


def _unfit(packages: Iterable[Package]) -> Iterator[Problem]:
    for package in packages:
        if not package.fits:
            yield Problem(_fault(package), f"pip install '{package.name}{package.wanted}'", broken=True)


def _unfit_extras(extras: Iterable[Extra]) -> Iterator[Problem]:
    """Name what an extra has in the wrong version; one that is not there at all is no problem."""
    for extra in extras:
        for package in extra.packages:
            if package.version and not package.fits:
                yield Problem(f"{_fault(package)} by the extra {extra.name}", extra.command, broken=False)


def _conflicts(packages: Iterable[Package]) -> Iterator[Problem]:
    """Name what the needed packages themselves miss, as a torchvision that was built for another torch."""
    from packaging.requirements import Requirement

    for package in packages:
        if package.version is None:
            continue
        for each in map(Requirement, metadata.requires(package.name) or ()):
            needed = _package(each) if _applies(each, "") else None
            if needed and not needed.fits:
                found = f"{_fault(needed)} by {package.name} {package.version}"
                yield Problem(found, f"pip install --upgrade {package.name} {needed.name}", broken=True)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _package(requirement: Requirement) -> Package:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        version = None
    fits = version is not None and requirement.specifier.contains(version, prereleases=True)
    return Package(requirement.name, str(requirement.specifier), version, fits)


def _fault(package: Package) -> str:
    if package.version is None:
        return f"{package.name} is not installed, {package.wanted or 'any version'} is needed"
    return f"{package.name} {package.version} is installed, {package.wanted} is needed"
