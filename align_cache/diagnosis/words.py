"""A diagnosis in lines for people: nothing is folded, so that every command can be copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from align_cache.reporting.wording import byte_size

if TYPE_CHECKING:
    from align_cache.diagnosis.cache import Cache
    from align_cache.diagnosis.diagnosis import Diagnosis
    from align_cache.diagnosis.machine import Machine
    from align_cache.diagnosis.needs import Hub, Need
    from align_cache.diagnosis.packages import Extra, Package

_LABEL = 10


def diagnosis_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Say everything that was seen, and last what is amiss, where the eye is."""
    versions = diagnosis.versions
    yield f"align-cache {versions['align_cache']}, Python {versions['python']}, {versions['platform']}"
    yield ""
    for label, text in _facts(diagnosis):
        yield f"{label:<{_LABEL}}{text}"
    for kind, needs in (("encoders", diagnosis.encoders), ("datasets", diagnosis.datasets)):
        yield from _needs(kind, needs)
    yield ""
    for problem in diagnosis.problems:
        yield f"{'broken' if problem.broken else 'note':<{_LABEL}}{problem.found}"
        yield f"{'':<{_LABEL}}→ {problem.mend}"
    broken = sum(problem.broken for problem in diagnosis.problems)
    yield f"{broken} broken" if broken else "nothing that is there is broken"


def _facts(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    if diagnosis.machine:
        yield "machine", _machine(diagnosis.machine)
    if diagnosis.packages:
        yield "packages", _packages(diagnosis.packages)
    for extra in diagnosis.extras:
        yield "extra", _extra(extra)
    if diagnosis.hub:
        yield "hub", _hub(diagnosis.hub)
    if diagnosis.cache:
        yield "cache", _cache(diagnosis.cache, deep=diagnosis.deep)
        yield from (("held", each) for each in diagnosis.cache.held)
    if diagnosis.runs:
        yield "runs", ", ".join(f"{count} {status}" for status, count in diagnosis.runs.items())


def _machine(machine: Machine) -> str:
    bf16 = f"fast bfloat16 ({', '.join(machine.cpu_units)})" if machine.cpu_units else "no fast bfloat16"
    cpu = f"{machine.processors} processors, {byte_size(machine.memory_bytes)}, {bf16}"
    gpus = [f"{each.kind}: {each.name}, {byte_size(each.memory_bytes)}" for each in machine.accelerators]
    return "; ".join([cpu, *(gpus or ["no GPU"]), f"--device auto is {machine.device}"])


def _packages(packages: Sequence[Package]) -> str:
    return ", ".join(f"{each.name} {each.version or '(missing)'}" for each in packages)


def _extra(extra: Extra) -> str:
    if not extra.present:
        return f"{extra.name}: not installed; {extra.command}"
    return f"{extra.name}: {_packages(extra.packages)}"


def _hub(hub: Hub) -> str:
    way = "HF_HUB_OFFLINE is set" if hub.offline else "reachable" if hub.reachable else "not reachable"
    token = "a token is there" if hub.token else "no token (public repositories need none)"
    return f"{hub.endpoint}: {way}; {token}; files in {hub.cache}"


def _cache(cache: Cache, *, deep: bool) -> str:
    where = cache.folder.absolute()
    free = f"{byte_size(cache.free_bytes)} free"
    if not cache.exists:
        return f"{where} is not there yet, the first command makes it; {free}"
    how = "every byte checked" if deep else "sizes checked (--deep: every byte)"
    unfinished = f", {cache.unfinished} unfinished" if cache.unfinished else ""
    return f"{where}: {cache.sets} feature sets, {byte_size(cache.set_bytes)}{unfinished}, {how}; {free}"


def _needs(kind: str, needs: Sequence[Need]) -> Iterator[str]:
    for label, state in (("ready", "ready"), ("from --data-dir alone", "from disk")):
        if names := [need.name for need in needs if need.state == state]:
            yield f"{kind:<{_LABEL}}{label}: {', '.join(names)}"
    if missing := [need for need in needs if need.command]:
        yield f"{kind:<{_LABEL}}to fetch:"
        width = max(len(need.name) for need in missing)
        yield from (f"{'':<{_LABEL}}{need.name:<{width}}  {need.command}" for need in missing)
