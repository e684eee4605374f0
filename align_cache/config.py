"""Reading settings: default < preset < file < ``--set`` < flag, every error at once with the nearest name.

The models themselves are in :mod:`align_cache.settings`; this module knows how to merge and to complain.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from align_cache.errors import ConfigError

Nested = dict[str, Any]
ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Layer:
    """Some settings and where they were given; a later layer wins."""

    origin: str
    values: Nested


def file_layer(path: Path) -> Layer:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        If it is missing or not TOML.
    """
    try:
        return Layer(str(path), tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
        hint = f"did you mean {path.parent / near[0]}?" if near else None
        raise ConfigError(f"{path}: no such file", hint=hint) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def set_layer(assignments: Sequence[str]) -> Layer:
    """Read ``a.b=value`` assignments; the value is TOML where it parses as TOML, a plain string elsewhere."""
    values: Nested = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"--set {assignment}: expected KEY=VALUE", hint="for example --set optim.lr=1e-3"
            )
        _put(values, key.strip(), _toml_value(text.strip()))
    return Layer("--set", values)


def flag_layer(flags: Mapping[str, object]) -> Layer:
    """Make a layer of the flags that were given: dotted key to value, None meaning not given."""
    values: Nested = {}
    for key, value in flags.items():
        if value is not None:
            _put(values, key, value)
    return Layer("flag", values)


def resolve(model: type[ModelT], layers: Sequence[Layer]) -> ModelT:
    """Merge the layers over the model's defaults and validate the result.

    Raises
    ------
    ConfigError
        Names every unknown key, wrong type and value out of range, each with the layer it came from.
    """
    merged: Nested = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        lines = _complaints(model, layers, error.errors())
        raise ConfigError("; ".join(lines) if len(lines) == 1 else _many(lines)) from None


def to_toml(config: BaseModel) -> str:
    """Write a config so that :func:`file_layer` and :func:`resolve` give the same config back."""
    return tomli_w.dumps(_spell_none(config.model_dump(mode="json")))


def _spell_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spell_none(inner) for key, inner in value.items()}
    return "none" if value is None else value


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """List every dotted key of a model, sections first as they are declared."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from setting_names(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _many(lines: Sequence[str]) -> str:
    return f"{len(lines)} settings cannot be used:\n" + "\n".join(f"  {line}" for line in lines)


def _complaints(model: type[BaseModel], layers: Sequence[Layer], problems: Sequence[Any]) -> list[str]:
    """One line for each setting; the branches of a union are one setting with several expectations."""
    lines: dict[str, str] = {}
    leaves = set(setting_names(model))
    for problem in problems:
        unknown = problem["type"] == "extra_forbidden"
        path = [str(part) for part in problem["loc"]] if unknown else _setting_path(model, problem["loc"])
        key = ".".join(path)
        origin = next((layer.origin for layer in reversed(layers) if path and _has(layer.values, path)), None)
        where = f"{origin}: " if origin else ""
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if unknown:
            near = _nearest(key, sorted(leaves))
            lines[key] = f"{where}{key} is not a setting" + (f" (did you mean {near}?)" if near else "")
        elif problem["type"] == "missing":
            lines[key] = f"{key} is required"
        elif key in lines:
            lines[key] += f", or {message}"
        elif isinstance(problem["input"], (dict, BaseModel)) and key not in leaves:  # of a whole section
            lines[key] = f"{where}{message}"
        else:
            lines[key] = f"{where}{key} = {problem['input']!r}: {message}"
    return [lines[key] for key in sorted(lines)]


def _setting_path(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Keep the part of pydantic's location that names a setting; list indices and union branches go."""
    path: list[str] = []
    fields: Mapping[str, Any] = model.model_fields
    for part in location:
        if part not in fields:
            break
        path.append(str(part))
        annotation = fields[str(part)].annotation
        fields = getattr(annotation, "model_fields", {})
    return path


def _nearest(key: str, names: Sequence[str]) -> str | None:
    leaf = key.rpartition(".")[2]
    by_leaf = [name for name in names if name.rpartition(".")[2] == leaf]
    if by_leaf:
        return by_leaf[0]
    leaves = {name.rpartition(".")[2]: name for name in names}
    near = difflib.get_close_matches(key, names, n=1) or difflib.get_close_matches(leaf, leaves, n=1)
    return leaves.get(near[0], near[0]) if near else None


def merge(below: Nested, above: Nested) -> Nested:
    """Lay nested settings over others."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Spell nested settings as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _put(values: Nested, dotted: str, value: object) -> None:
    *sections, leaf = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{dotted}: {section} already has the value {inner!r}")
        values = inner
    values[leaf] = value


def _has(values: object, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
