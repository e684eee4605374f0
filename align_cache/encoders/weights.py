"""Where an encoder's weights come from, what names their bytes, how they fill a model: wholly or not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align_cache.errors import EncoderError, OfflineError, UsageError

if TYPE_CHECKING:
    import torch

_SHOWN_KEYS = 4


@dataclass(frozen=True, slots=True)
class WeightsChoice:
    """``pretrained`` (neither field), ``random`` (a seed) or local (a path)."""

    seed: int | None = None
    path: Path | None = None


def parse_weights(text: str) -> WeightsChoice:
    """Read ``pretrained``, ``random``, ``random:<seed>`` or a path that exists.

    Raises
    ------
    UsageError
        If the seed is no whole number of at least 0, or nothing lies at the path.
    """
    if text == "pretrained":
        return WeightsChoice()
    kind, _, seed = text.partition(":")
    if kind == "random":
        if seed and not seed.isdecimal():
            raise UsageError(f"weights {text!r}: the seed must be a whole number", hint="random or random:7")
        return WeightsChoice(seed=int(seed or 0))
    path = Path(text).expanduser()
    if not path.exists():
        raise UsageError(f"weights {text!r}: nothing lies there", hint="pretrained, random[:seed] or a path")
    return WeightsChoice(path=path)


def require_file(path: Path, *, owner: str) -> Path:
    """Return ``path`` unless it is a folder: a folder of weights is for transformers models only."""
    if path.is_dir():
        raise EncoderError(
            f"{owner} takes one file of weights, {path} is a folder", hint="name the file in it"
        )
    return path


def digest_files(paths: Sequence[Path]) -> str:
    """Return ``sha256:`` and what ``sha256sum`` says of one file; of several, the sha256 of their digests."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(each.digest() for each in digests))
    return f"sha256:{whole.hexdigest()}"


def reason_of(error: Exception) -> str:
    """Return the first line of what another library says, or the kind of its error where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def fetch_file(url: str, *, folder: Path, command: str) -> Path:
    """Return ``folder``'s copy of a published weights file, downloading it where it is missing.

    Parameters
    ----------
    url : str
        Its last part is the file's name and holds the head of its sha256, as in ``resnet18-f37072fd.pth``.
    folder : Path
        torch.hub's folder of checkpoints.
    command : str
        What a user types to fetch the file by hand; the hint where there is no network.

    Raises
    ------
    OfflineError
        Within two seconds, where the file is missing and the server cannot be reached.
    """
    path = folder / url.rpartition("/")[2]
    if path.is_file():
        return path
    from align_cache.sources.hub import is_reachable

    if not is_reachable(url):
        raise OfflineError(
            f"{path.name} is not in {folder} and {url} cannot be reached from here",
            hint=f"fetch it where there is a network: {command}; or pass --weights NAME=FILE",
        )
    from torch.hub import download_url_to_file

    folder.mkdir(parents=True, exist_ok=True)
    download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
    return path


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` inside the block and leave torch's random state as it was outside."""
    import torch

    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would reseed the GPUs' generators too.
        torch.default_generator.manual_seed(seed)
        yield


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a ``.safetensors``, ``.pth`` or ``.pt`` file; nothing in it is executed.

    Raises
    ------
    EncoderError
        If the file is damaged, of another kind, or holds anything but a mapping of tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 — this is the place
    except Exception as error:
        raise EncoderError(
            f"{path} cannot be read as weights: {reason_of(error)}",
            hint="expected .safetensors, or a .pth that holds a plain state dict",
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise EncoderError(f"{path} is no plain state dict (names and tensors)")
    return dict(state)


def fill(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], *, without: Sequence[str], origin: Path
) -> None:
    """Copy ``state`` into ``model``; every tensor must be there but those under ``without``.

    Parameters
    ----------
    model : torch.nn.Module
        Its classifier has been taken out.
    state : mapping of str to tensor
        With the classifier or without it; of any number of classes.
    without : sequence of str
        Module paths of what was taken out.
    origin : Path
        Named in the error.

    Raises
    ------
    EncoderError
        Naming missing, unexpected and misshapen tensors.
    """
    removed = tuple(f"{path}." for path in without)
    kept = {key: value for key, value in state.items() if not key.startswith(removed)}
    expected = model.state_dict()
    # Counters of batches are of no use to a frozen model and absent from old files.
    missing = [key for key in expected if key not in kept and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in kept if key not in expected]
    misshapen = [key for key in kept if key in expected and kept[key].shape != expected[key].shape]
    refuse_partial(origin, missing=missing, unexpected=unexpected, misshapen=misshapen)
    model.load_state_dict(kept, strict=False)


def refuse_partial(
    origin: Path, *, missing: Iterable[str], unexpected: Iterable[str], misshapen: Iterable[str] = ()
) -> None:
    """Raise :class:`EncoderError` unless all three are empty."""
    found = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    faults = [
        f"{len(keys)} {what} ({_some(keys)})" for what, names in found.items() if (keys := sorted(names))
    ]
    if faults:
        raise EncoderError(
            f"{origin} does not fit the model: {'; '.join(faults)}",
            hint="give the weights of this very architecture, or random to run it untrained",
        )


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:_SHOWN_KEYS])
    return shown if len(keys) <= _SHOWN_KEYS else f"{shown}, …"
