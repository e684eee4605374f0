"""Adapters and trainer state on disk: written whole, listed last, never unpickled.

    checkpoints/adapters-0007.safetensors   the weights, for everyone
    checkpoints/trainer-0007.pt             the optimiser, to resume
    checkpoints/index.json                  which files are ``last`` and ``best``, with checksums

The index is published after the files it names and before the files it no longer names are removed,
so that a kill at any moment leaves a last and a best that can be read.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from align_cache.errors import CorruptError, RunError
from align_cache.files import checksum, is_plain_file, publish_bytes, publish_text


@dataclass(frozen=True, slots=True)
class Weights:
    """The adapters of one epoch, on the CPU."""

    epoch: int
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module, epoch: int) -> "Weights":
        """Copy a module's weights: training goes on in the ones it has."""
        state = module.state_dict()
        return cls(epoch, {name: tensor.detach().cpu().clone() for name, tensor in state.items()})


def save_checkpoint(
    folder: Path,
    *,
    last: Weights,
    best: Weights | None,
    trainer: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """Publish an epoch as ``last``, and another, or the same, as ``best``.

    Parameters
    ----------
    last : Weights
    best : Weights or None
        None: the best that was published before still is.
    trainer : mapping
        What resuming needs beyond the weights: tensors, numbers, strings and containers of them.
    metadata : mapping of str to str
        Goes into the header of the safetensors files.
    """
    index = _read_index(folder) if (folder / "index.json").exists() else {}
    state = folder / f"trainer-{last.epoch:04d}.pt"
    buffer = io.BytesIO()
    torch.save(dict(trainer), buffer)
    publish_bytes(state, buffer.getvalue())
    entry = _publish_weights(folder, last, metadata)
    index["last"] = {**entry, "trainer": _entry(state)}
    if best is not None:
        index["best"] = entry if best.epoch == last.epoch else _publish_weights(folder, best, metadata)
    publish_text(folder / "index.json", json.dumps(index, indent=2) + "\n")

    named = {part["file"] for kept in index.values() for part in kept.values() if isinstance(part, dict)}
    for path in [*folder.glob("adapters-*.safetensors"), *folder.glob("trainer-*.pt")]:
        if path.name not in named:
            path.unlink()


def _publish_weights(folder: Path, weights: Weights, metadata: Mapping[str, str]) -> dict[str, Any]:
    path = folder / f"adapters-{weights.epoch:04d}.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in weights.tensors.items()}
    publish_bytes(path, save_safetensors(tensors, metadata={**metadata, "epoch": str(weights.epoch)}))
    return {"epoch": weights.epoch, "adapters": _entry(path)}


def load_adapters(folder: Path, which: str) -> tuple[dict[str, Tensor], int]:
    """Read the weights of ``best`` or ``last`` and the epoch they are of.

    Raises
    ------
    RunError
        If nothing was saved yet.
    CorruptError
        If the file is not the one that was published.
    """
    entry = _entry_of(folder, which)
    path = _checked(folder, entry["adapters"])
    try:
        return load_safetensors(path.read_bytes()), int(entry["epoch"])
    except SafetensorError as error:
        raise CorruptError(f"{path} is not a safetensors file: {error}") from None


def load_trainer(folder: Path) -> tuple[dict[str, Any], int]:
    """Read the trainer's state of ``last`` and the epoch it is of."""
    entry = _entry_of(folder, "last")
    path = _checked(folder, entry["trainer"])
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - the one place for state
    except Exception as error:  # torch raises nearly anything on a damaged archive
        what = str(error).partition("\n")[0] or type(error).__name__
        raise CorruptError(f"{path} is not a trainer state that can be read safely: {what}") from None
    if not isinstance(state, dict):
        raise CorruptError(f"{path} holds a {type(state).__name__}, expected a trainer state")
    return state, int(entry["epoch"])


def _entry(path: Path) -> dict[str, str]:
    return {"file": path.name, "xxh3_128": checksum(path)}


def _entry_of(folder: Path, which: str) -> dict[str, Any]:
    index = _read_index(folder) if (folder / "index.json").exists() else {}
    if which not in index:
        raise RunError(f"{folder.parent.name} has no {which} checkpoint: no epoch was finished",
                       hint="train again: align-cache fit")  # fmt: skip
    entry: dict[str, Any] = index[which]
    return entry


def _checked(folder: Path, part: Mapping[str, str]) -> Path:
    path = folder / Path(part["file"]).name
    if not is_plain_file(path):
        raise CorruptError(f"{path} is missing or no regular file")
    if checksum(path) != part["xxh3_128"]:
        raise CorruptError(f"{path} is not the file that was saved: its checksum differs from index.json")
    return path


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptError(f"{path} is not JSON: {error}") from None
    if not (isinstance(index, dict) and all(_is_entry(which, entry) for which, entry in index.items())):
        raise CorruptError(f"{path} is no index of checkpoints: another form than align-cache writes")
    return index


def _is_entry(which: str, entry: object) -> bool:
    """Say whether a part of the index has an epoch, and a name and a checksum for each of its files."""
    if not isinstance(entry, dict) or type(entry.get("epoch")) is not int:
        return False
    files = {"adapters", "trainer"} if which == "last" else {"adapters"}
    parts = [entry.get(name) for name in files]
    return entry.keys() == {"epoch", *files} and all(
        isinstance(part, dict)
        and part.keys() == {"file", "xxh3_128"}
        and all(isinstance(value, str) for value in part.values())
        for part in parts
    )
