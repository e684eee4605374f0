"""A model as a folder, for other machines and the hub.

    config.json         the encoders, how they were asked for, the adapters' settings, checksums
    model.safetensors   the weights of the adapters, and of a text tower; none of the encoders
    tokenizer.json …    the tokenizer, where it does not come with published weights
    records.json        what the run says of itself: what README.md is written from
    README.md           the model card

``config.json`` is published last. What is read is checked before it is used: nothing in a folder is unpickled
or run, and no name in it leads out of it but those of the encoders' own weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from align_cache.adapters.pair import AdapterPair
from align_cache.adapters.run_adapters import filled_pair
from align_cache.encoders.tokenizer import find_tokenizer, load_tokenizer, portable_files
from align_cache.errors import CacheError, CorruptError, OfflineError, SourceError, UsageError
from align_cache.files import publish_bytes, publish_text
from align_cache.results import Record
from align_cache.settings import FitConfig
from align_cache.sources.hub import fetch_command, fetch_snapshot
from align_cache.use.known_encoder import KnownEncoder
from align_cache.use.saved_model import VOCABULARY, SavedEncoder, SavedModel, parse_saved

if TYPE_CHECKING:
    from align_cache.use.model import AlignedModel

CONFIG, WEIGHTS, RECORDS, CARD = "config.json", "model.safetensors", "records.json", "README.md"
_TOKENIZER = (VOCABULARY, "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json")


class ReadModel(NamedTuple):
    """What a folder holds."""

    pair: AdapterPair
    config: FitConfig
    image_encoder: KnownEncoder
    text_encoder: KnownEncoder
    embed_dim: int
    records: dict[str, Record | None]


def write_model(model: AlignedModel, folder: Path, *, card: str) -> None:
    """Write all files of a model but the encoders' weights; what a model left there before is replaced."""
    state = model.pair.state_dict()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    tokenizer = _tokenizer_files(model.text_encoder)
    contents = {
        WEIGHTS: save_safetensors(tensors, metadata={"format": "pt"}),
        RECORDS: (json.dumps(model.records, ensure_ascii=False, indent=1) + "\n").encode(),
        **tokenizer,
    }
    saved = SavedModel(
        embed_dim=model.embed_dim,
        image=SavedEncoder.of(model.image_encoder, tokenizer=None),
        text=SavedEncoder.of(model.text_encoder, tokenizer=next(iter(tokenizer), None)),
        fit=model.config.model_dump(mode="json", exclude={"log": {"save_dir"}}),  # a folder of this machine
        files={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    )
    (folder / CONFIG).unlink(missing_ok=True)  # from here to the end it is no model
    for name in _TOKENIZER:
        (folder / name).unlink(missing_ok=True)
    for name, data in contents.items():
        publish_bytes(folder / name, data)
    publish_text(folder / CARD, card)
    publish_text(folder / CONFIG, saved.to_json())


def _tokenizer_files(known: KnownEncoder) -> dict[str, bytes]:
    """Return the tokenizer that a folder has to hold, its main file first; none where weights bring one."""
    if known.request is None:
        return {}
    if known.tokenizer_file is not None:
        return {VOCABULARY: known.tokenizer_file.read_bytes()}
    if known.counted_from is not None:
        counted = load_tokenizer(None, known.captions, max_length=known.request.max_length)
        return {VOCABULARY: counted.to_json().encode()}
    if known.request.tokenizer is not None:
        return portable_files(find_tokenizer(known.request.tokenizer))
    return {}


def model_folder(folder_or_hub_id: str | Path, *, revision: str | None) -> Path:
    """Return a folder as it is; of a hub repository, the local folder of its snapshot.

    Raises
    ------
    UsageError
        For a revision of a folder.
    SourceError
        If there is neither; OfflineError where the hub cannot be reached and it was not fetched before.
    """
    folder, name = Path(folder_or_hub_id).expanduser(), str(folder_or_hub_id)
    if folder.is_dir():
        if revision is not None:
            raise UsageError(f"revision = {revision}, and {folder} is a folder, which has one state")
        return folder
    if isinstance(folder_or_hub_id, Path) or name.count("/") != 1 or name[0] in "./~" or name[-1] == "/":
        raise SourceError(
            f"{folder} is no folder", hint="name a folder that save_pretrained left, or owner/name"
        )
    files = (CONFIG, WEIGHTS, RECORDS, *_TOKENIZER)
    try:
        return fetch_snapshot(
            name, repo_type="model", revision=revision, allow_patterns=files, needed=(WEIGHTS,)
        )[0]
    except OfflineError as error:
        command = fetch_command(name, repo_type="model", revision=revision)
        hint = f"fetch it where there is a network: {command}; or name a folder that save_pretrained left"
        raise OfflineError(error.message, hint=hint) from error


def read_model(folder: Path) -> ReadModel:
    """Read what :func:`write_model` wrote.

    Raises
    ------
    CorruptError
        If a file is missing, damaged, or not what the others say.
    CacheError
        If a newer align-cache wrote it.
    """
    try:
        saved, config = parse_saved(_read(folder / CONFIG))
    except CacheError as error:
        raise type(error)(f"{folder / CONFIG}: {error.message}", hint=error.hint) from None
    contents = {
        name: _checked(folder / name, saved.files.get(name)) for name in {WEIGHTS, RECORDS, *saved.files}
    }
    weights = _tensors(contents[WEIGHTS], folder / WEIGHTS)
    try:
        pair = filled_pair(config, saved.image.dim, saved.text.dim, saved.embed_dim, weights)
    except CorruptError as error:
        raise CorruptError(f"{folder} does not hold what its {CONFIG} says: {error}") from None
    image, text = saved.image.known(folder), saved.text.known(folder)
    if text.tokenizer_file is not None and VOCABULARY not in saved.files:
        raise CorruptError(f"{folder / CONFIG} lists no {VOCABULARY}, which its text encoder counts on")
    return ReadModel(pair, config, image, text, saved.embed_dim, _records(contents[RECORDS], folder))


def _records(data: bytes, folder: Path) -> dict[str, Record | None]:
    try:
        records = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{folder / RECORDS} is no JSON: {error}") from None
    if not isinstance(records, dict) or not all(isinstance(each, dict | None) for each in records.values()):
        raise CorruptError(f"{folder / RECORDS} is of another structure, expected an object of objects")
    return records


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise CorruptError(f"{path} is not a safetensors file: {error}") from None


def _checked(path: Path, sha256: str | None) -> bytes:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptError(f"{path} is not the file that was saved: its checksum differs from {CONFIG}")
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptError(f"{path} cannot be read: {error.strerror}") from None
