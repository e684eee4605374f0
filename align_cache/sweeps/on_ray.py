"""A sweep on a Ray cluster: every piece of work is one group of trials, trained as one process would."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from align_cache.ray_cluster import Slots, connected, patiently, result_of
from align_cache.runtime import prepare_environment
from align_cache.settings import SweepConfig
from align_cache.sweeps.records import begun_runs
from align_cache.sweeps.workers import Outcome, Task, first_line, in_this_process
from align_cache.training.assemble import Opened

_GROUP_ON_GPU = 16
"""Trials that one GPU is given at a time; as many of them as fit and have one shape are trained together."""
_POLL_S = 1.0


def on_ray(
    tasks: Iterator[Task], config: SweepConfig, cache_dir: Path, *, address: str | None
) -> Generator[Outcome]:
    """Train groups of tasks on the nodes of a Ray cluster, as many at a time as it has room for.

    A task is taken from ``tasks`` when there is room for it, after every outcome so far was given out.
    """
    with connected(address, device=str(config.base.get("device", "auto"))) as slots:
        size = config.together or (_GROUP_ON_GPU if slots.gpus else 1)
        yield from _in_groups(tasks, slots, cache_dir.absolute(), size=size, together=config.together)


def _in_groups(
    tasks: Iterator[Task], slots: Slots, cache_dir: Path, *, size: int, together: int | None
) -> Generator[Outcome]:
    import ray

    running: set[Any] = set()
    while True:
        while len(running) < slots.count and (group := list(islice(tasks, size))):
            running.add(slots.submit(_train, group, cache_dir, together))
        if not running:
            return
        done, _ = ray.wait(list(running), timeout=_POLL_S)
        for reference in done:
            running.remove(reference)
            yield from result_of(reference)


def _train(group: Sequence[Task], cache_dir: Path, together: int | None) -> list[Outcome]:
    """Train a group in a process of the cluster; runs that a lost process began are gone on with."""
    prepare_environment()

    def train() -> list[Outcome]:
        begun = begun_runs(cache_dir, group[0].sweep)
        tasks = (replace(task, run=task.run or begun.get(task.key)) for task in group)
        return list(in_this_process(tasks, _opened(cache_dir), together=together))

    try:
        return patiently(train)
    except Exception as error:  # a fault of one group, whatever it is, is no reason to lose the others
        return [
            Outcome(task.key, "failed", error=f"{type(error).__name__}: {first_line(error)}")
            for task in group
        ]


@cache
def _opened(cache_dir: Path) -> Opened:
    """Open features once for all that this process trains."""
    return Opened(cache_dir, whole=True)
