"""Whether the hub can be reached, and what each encoder and dataset still wants from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from align_cache.diagnosis.problems import Problem
from align_cache.encoders import ENCODERS, missing_weights
from align_cache.sources import HUB_COPIES, SOURCES, missing_copy, takes_data_dir
from align_cache.sources.hub import is_reachable

State: TypeAlias = Literal["ready", "to fetch", "from disk"]


@dataclass(frozen=True, slots=True)
class Hub:
    """The way to the Hugging Face hub."""

    endpoint: str
    offline: bool
    """Whether ``HF_HUB_OFFLINE`` is set."""
    reachable: bool
    token: bool
    """Whether there is one. It is never shown."""
    cache: Path
    """Where fetched files lie."""


@dataclass(frozen=True, slots=True)
class Need:
    """One encoder or dataset, and whether it can be used as it is."""

    name: str
    state: State
    """``from disk``: the hub has no copy, it is read with ``--data-dir``."""
    command: str | None
    """What fetches it; None where nothing is to be fetched."""


def hub_access() -> Hub:
    """Try the way to the hub; within two seconds."""
    from huggingface_hub import constants, get_token

    return Hub(
        endpoint=constants.ENDPOINT,
        offline=constants.HF_HUB_OFFLINE,
        reachable=is_reachable(constants.ENDPOINT),
        token=get_token() is not None,
        cache=Path(constants.HF_HUB_CACHE),
    )


def encoder_needs() -> tuple[Need, ...]:
    """Look for the published weights of every encoder of the table; families are left out."""
    return tuple(_need(name, missing_weights(name)) for name in ENCODERS if "<" not in name)


def dataset_needs() -> tuple[Need, ...]:
    """Look for the hub's copy of every dataset that has one."""
    return tuple(
        Need(name, "from disk", None)
        if takes_data_dir(name) and name not in HUB_COPIES
        else _need(name, missing_copy(name))
        for name in SOURCES
    )


def hub_problems(hub: Hub, needs: tuple[Need, ...]) -> Iterator[Problem]:
    """Say that the hub is away, if anything would be fetched from it."""
    if hub.reachable or not any(need.command for need in needs):
        return
    found, mend = (
        ("HF_HUB_OFFLINE is set, and not everything was fetched before", "unset HF_HUB_OFFLINE")
        if hub.offline
        else (f"{hub.endpoint} cannot be reached from here", "see to the network, or to HTTPS_PROXY")
    )
    yield Problem(found, f"{mend}; or carry files here: --weights NAME=PATH, --data-dir FOLDER", broken=False)


def _need(name: str, command: str | None) -> Need:
    return Need(name, "to fetch" if command else "ready", command)
