"""Where the time of an extraction goes: what its main thread did or waited for, and what took longest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stages:
    """Seconds by stage. Stages run beside each other, so each is what it cost the thread that drives them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Count the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def waiting(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """Pass items on and count the time until each comes to a stage."""
        while True:
            with self.timing(stage):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


def bottleneck(seconds: Mapping[str, float]) -> str:
    """Say which share each stage had and which was the longest: ``decoding 71%, resnet18 26%, …``.

    Parameters
    ----------
    seconds : mapping of stage to seconds
        Not empty.
    """
    total = sum(seconds.values()) or 1.0
    shares = ", ".join(f"{stage} {100 * spent / total:.0f}%" for stage, spent in seconds.items())
    return f"{shares}; the longest: {max(seconds, key=lambda stage: seconds[stage])}"
