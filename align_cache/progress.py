"""What a progress bar is to the code that works: told how much is done, and nothing else."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeAlias


class Bar(Protocol):
    """A progress bar at work."""

    def advance(self, count: int = 1) -> None:
        """Add ``count`` to what is done."""


Progress: TypeAlias = Callable[[int, str, str], AbstractContextManager[Bar]]
"""Makes a bar from a total, a description and a unit in the plural."""


class _NoBar:
    def advance(self, count: int = 1) -> None:
        """Show nothing."""


def no_progress(total: int, description: str, unit: str) -> AbstractContextManager[Bar]:
    """Make a bar that shows nothing."""
    return nullcontext(_NoBar())
