"""transformers models decided: those with a name of their own and ``hf:<id>``; no torch is imported.

A folder says itself what it is: ``config.json`` whether it reads images or text, ``preprocessor_config.json``
how images are prepared, ``tokenizer.json`` or ``vocab.txt`` how text is split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from align_cache.encoders.base import EncoderRequest, EncoderSpec, Json, Modality, Preprocess
from align_cache.encoders.clip import TOWERS, one_tower, split_tower
from align_cache.encoders.named import NAMED
from align_cache.encoders.pooling import decide_pooling
from align_cache.encoders.preprocessor import read_preprocessor
from align_cache.encoders.spec import image_spec, text_spec
from align_cache.encoders.tokenizer import find_tokenizer, tokenizer_identity
from align_cache.encoders.weights import WeightsChoice, digest_files, parse_weights
from align_cache.errors import EncoderError, UsageError

_CONFIG_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_WEIGHT_FILES = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
# Of config.json, what says nothing of the features.
_VOLATILE = (
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "id2label",
    "label2id",
)


class _Common(TypedDict):
    """What the specs of images and of text have in common."""

    architecture: Json
    weights: str
    untrained: bool
    pooling: str


@dataclass(frozen=True, slots=True)
class _Model:
    """What was found: the folder (None for a built-in architecture), its config, how images are prepared."""

    folder: Path | None
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any] | None


def resolve(request: EncoderRequest, repo_id: str | None, *, captions_digest: str | None) -> EncoderSpec:
    """Decide a transformers encoder; ``repo_id`` (``owner/name[@revision][:tower]``) is None for named."""
    choice = parse_weights(request.weights)
    model = _named_model(request, choice) if repo_id is None else _any_model(request, choice, repo_id)
    pooling = decide_pooling(request, model.config)
    weights, files = _weights(choice, model.folder)
    architecture = {"model_type": model.config["model_type"], "config": _config_digest(model.config)}
    common: _Common = {
        "architecture": architecture,
        "weights": weights,
        "untrained": choice.seed is not None,
        "pooling": pooling,
    }
    if _modality(request, model.config) == "image":
        preprocess, mean, std = _preprocessing(request, model)
        return image_spec(request, **common, preprocess=preprocess, mean=mean, std=std, files=files)
    _check_length(request, model.config)
    file = _tokenizer_file(request, model.folder)
    tokenizer = tokenizer_identity(file, captions_digest, request)
    return text_spec(
        request, **common, tokenizer=tokenizer, files=files if file is None else files | {"tokenizer": file}
    )


def _weights(choice: WeightsChoice, folder: Path | None) -> tuple[str, dict[str, Path]]:
    """Return what names the weights in the identity, and the files that ``load`` reads."""
    files = {} if folder is None else {"config": folder / "config.json"}
    if choice.seed is not None:
        return f"random:{choice.seed}", files
    assert folder is not None, "only an untrained model does without a folder"
    parts = _weight_files(folder)
    return digest_files(parts), files | {"weights": parts[0]}


def _named_model(request: EncoderRequest, choice: WeightsChoice) -> _Model:
    named = NAMED[request.name]
    if choice.seed is not None:
        return _Model(None, named.config, named.preprocessor)
    folder = choice.path or _fetch(named.repo_id, weights=True)
    config = one_tower(_read_config(folder), _modality(request, named.config), owner=request.name)
    expected = named.config.items()
    differing = [
        f"{key} is {config[key]}, not {value}" for key, value in expected if config.get(key, value) != value
    ]
    if differing:
        raise EncoderError(
            f"{folder} is not {request.name}: {', '.join(differing)}",
            hint=f"name it hf:{named.repo_id.partition('/')[0]}/NAME to use another model's folder",
        )
    return _Model(folder, config, _read_preprocessor_config(folder) or named.preprocessor)


def _any_model(request: EncoderRequest, choice: WeightsChoice, name: str) -> _Model:
    repo_id, tower = split_tower(name)
    folder = choice.path or _fetch(repo_id, weights=choice.seed is None)
    config = one_tower(_read_config(folder), tower, owner=request.name)
    if tower is not None and config["model_type"] != TOWERS[tower]:
        raise UsageError(f"{request.name} names a tower, and a {config['model_type']} model has no such",
                         hint=f"name it hf:{repo_id}")  # fmt: skip
    return _Model(folder, config, _read_preprocessor_config(folder))


def _read_preprocessor_config(folder: Path) -> Mapping[str, Any] | None:
    file = folder / "preprocessor_config.json"
    return _read_json(file) if file.is_file() else None


def fetch_command_for(name: str) -> str | None:
    """Return the command that fetches the weights of a named model; None where they were fetched before."""
    from align_cache.sources.hub import fetch_command, fetched_snapshot

    repo_id, _, revision = NAMED[name].repo_id.partition("@")
    if fetched_snapshot(repo_id, repo_type="model", revision=revision or None, needed=_WEIGHT_FILES):
        return None
    patterns = _CONFIG_FILES + _WEIGHT_FILES
    return fetch_command(repo_id, repo_type="model", revision=revision or None, allow_patterns=patterns)


def _fetch(repo_id: str, *, weights: bool) -> Path:
    from align_cache.sources.hub import fetch_snapshot

    name, _, revision = repo_id.partition("@")
    patterns = _CONFIG_FILES + _WEIGHT_FILES if weights else _CONFIG_FILES
    folder, _ = fetch_snapshot(
        name,
        repo_type="model",
        revision=revision or None,
        allow_patterns=patterns,
        needed=_WEIGHT_FILES if weights else None,
    )
    return folder


def _read_config(folder: Path) -> Mapping[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise EncoderError(
            f"{folder} is no folder of a transformers model: it holds no config.json",
            hint="save one with model.save_pretrained(FOLDER), or download the repository with `hf download`",
        )
    config = _read_json(file)
    if not isinstance(config.get("model_type"), str):
        raise EncoderError(f"{file} names no model_type")
    return config


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderError(f"{file} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise EncoderError(f"{file} holds no JSON object")
    return value


def _weight_files(folder: Path) -> list[Path]:
    """Return ``model.safetensors``, or the parts its index names, in order."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise EncoderError(
            f"{folder} holds no model.safetensors",
            hint="weights in pickle form are not read: load and save_pretrained them once with transformers",
        )
    names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    parts = [folder / str(name) for name in names if Path(str(name)).name == name]
    if not parts or len(parts) != len(names) or not all(part.is_file() for part in parts):
        raise EncoderError(f"{index}: not all parts of the weights are in the folder")
    return parts


def _modality(request: EncoderRequest, config: Mapping[str, Any]) -> Modality:
    kind = config["model_type"]
    if config.get("is_encoder_decoder") or ("text_config" in config and "vision_config" in config):
        raise UsageError(f"{request.name} is a {kind} model with several towers; a single one is expected")
    if "vocab_size" in config:
        return "text"
    if "num_channels" in config or "image_size" in config:
        return "image"
    raise UsageError(f"{request.name} is a {kind} model, of neither images nor text by its config.json")


def _config_digest(config: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in _VOLATILE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _tokenizer_file(request: EncoderRequest, folder: Path | None) -> Path | None:
    """Return the tokenizer asked for, else the model's own; None, without a folder, lets one be counted."""
    path = request.tokenizer or folder
    return None if path is None else find_tokenizer(path)


def _check_length(request: EncoderRequest, config: Mapping[str, Any]) -> None:
    most = config.get("max_position_embeddings", request.max_length)
    if not 2 < request.max_length <= most:
        raise UsageError(f"{request.name} reads 3 to {most} tokens, max_length is {request.max_length}")


def _preprocessing(
    request: EncoderRequest, model: _Model
) -> tuple[Preprocess, Sequence[float], Sequence[float]]:
    if model.preprocessor is None:
        raise EncoderError(
            f"{model.folder} holds no preprocessor_config.json: how its images are prepared is not known",
            hint="copy it from the model's repository",
        )
    preprocess, mean, std = read_preprocessor(model.preprocessor, owner=request.name)
    side = model.config.get("image_size")
    if model.config["model_type"] == TOWERS["image"] and preprocess.crop != side:
        raise EncoderError(
            f"{request.name} reads images of {side} pixels, and by its preprocessor_config.json they have "
            f"{preprocess.crop}"
        )
    return preprocess, mean, std
