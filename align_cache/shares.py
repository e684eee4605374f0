"""Several processes, one extraction: which shards are whose, and what a launcher says of it.

Shard k belongs to process k mod n of n. Neighbouring shards go to different processes, so that what is
left after an interruption, at the end of a set as a rule, is everybody's; a shard itself is a block of
neighbouring samples, long enough to be read in one go.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from align_cache.errors import ConfigError

_WRITTEN = re.compile(r"(\d{1,7})/(\d{1,7})")


@dataclass(frozen=True, slots=True)
class Share:
    """One process of several: the ``rank``-th of ``world``, counted from 0."""

    rank: int
    world: int

    def __str__(self) -> str:
        return f"{self.rank}/{self.world}"

    def shards(self, count: int) -> range:
        """Return which of ``count`` shards are this process's; none where there are fewer than ranks."""
        return range(self.rank, count, self.world)


@dataclass(frozen=True, slots=True)
class Launched:
    """What the environment says of a process that a launcher started beside others."""

    share: Share
    local_rank: int
    """Which of the processes on its machine it is."""
    n_local: int | None
    """How many processes the machine has; None where the launcher does not say."""
    launcher: str
    """``torchrun`` or ``srun``."""

    def settings(self, processors: int) -> dict[str, object]:
        """Return what follows for an extraction: its shards, its GPU, its part of the ``processors``."""
        settings: dict[str, object] = {"shard_of": str(self.share), "local_rank": self.local_rank}
        if self.n_local is not None:
            settings["workers"] = max(1, processors // self.n_local)
        return settings


def parse_share(text: str) -> Share:
    """Read ``RANK/WORLD``: ``0/8`` is the first of eight.

    Raises
    ------
    ConfigError
        If it is written otherwise, or the rank is not below the world.
    """
    match = _WRITTEN.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ConfigError(f"{text!r} is no share, expected RANK/WORLD, of eight processes 0/8 to 7/8")
    return Share(int(match[1]), int(match[2]))


def launched(environment: Mapping[str, str]) -> Launched | None:
    """Return what torchrun or srun said of this process; None where it was started alone.

    A SLURM batch script has the variables of a task too, but runs once: it counts only inside a step.

    Raises
    ------
    ConfigError
        If the variables do not say which process of how many this is.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        launcher, rank_of, world_of, local_of = "torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"
    elif "SLURM_PROCID" in environment and (
        "SLURM_STEP_ID" in environment or "SLURM_JOB_ID" not in environment
    ):
        launcher, rank_of, local_of = "srun", "SLURM_PROCID", "SLURM_LOCALID"
        world_of = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    else:
        return None
    rank, world = _number(environment, rank_of), _number(environment, world_of)
    if world is None or world == 1:
        return None
    n_local = _number(environment, "LOCAL_WORLD_SIZE") if launcher == "torchrun" else None
    share = parse_share(f"{rank}/{world}")
    return Launched(share, _number(environment, local_of) or 0, n_local, launcher)


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigError(f"{name} = {text!r} in the environment, expected a number")
    return int(text)
