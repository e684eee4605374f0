"""What a diagnosis finds: something that is not as it should be, and the way out."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it should be."""

    found: str
    """What was found, in one line."""
    mend: str
    """The command or the change that mends it."""
    broken: bool
    """Whether something that is there does not work; else it is absent, unfinished or left over."""
