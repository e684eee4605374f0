"""What others build on, as it is now: the names of `align_cache.__all__`, every command and every setting.

    python -m tests.surface

writes it to tests/data/surface.json, and the table of names into docs/api.md. docs/stability.md says what may
change there, and how.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel

import align_cache
from align_cache.cli import app
from align_cache.settings import (
    EvalConfig,
    ExtractConfig,
    FitConfig,
    StressConfig,
    StudyConfig,
    SweepConfig,
)
from tests.config_tables import kind

ROOT = Path(__file__).parents[1]
HANDED_OUT = {"AlignedModel", "Comparison", "FeatureSet", "Run"}
"""Classes whose objects functions give; nobody builds one by hand."""
WRITING = {"Run": ("append_", "keep_", "update")}
"""What the stages call to write."""
RECORD = ROOT / "tests" / "data" / "surface.json"
PAGE = ROOT / "docs" / "api.md"
SETTINGS: Mapping[str, type[BaseModel]] = {
    "extract": ExtractConfig,
    "fit": FitConfig,
    "eval": EvalConfig,
    "stress": StressConfig,
    "sweep": SweepConfig,
    "study": StudyConfig,
}


def surface() -> dict[str, str]:
    """Everything stable, one line each: where it stands, and what it is."""
    return dict(sorted([*_python(), *_commands(), *_settings()]))


def _python() -> Iterator[tuple[str, str]]:
    for name in align_cache.__all__:
        yield from _name(f"python: {name}", getattr(align_cache, name))


def _name(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if inspect.isroutine(value):
        yield place, _signature(value)
        for given in _given_back(value):
            yield from ((f"{place} → {given.__name__}.{each}", what) for each, what in _members(given))
    elif isinstance(value, type) and issubclass(value, BaseModel):
        yield place, "settings"  # field by field under their own heading
    elif isinstance(value, type):
        bases = [base.__name__ for base in value.__bases__ if base is not object and _is_elsewhere(base)]
        built = [] if value.__name__ in HANDED_OUT else [_signature(value)]
        yield place, " ".join(["class", *bases, *built])
        yield from ((f"{place}.{member}", what) for member, what in _members(value))
    else:
        yield place, type(value).__name__


def _given_back(function: Any) -> list[type]:
    """Classes of what a function returns that are this package's and have no public name of their own."""
    hint = get_type_hints(SimpleNamespace(__annotations__={"": function.__annotations__["return"]}),
                          function.__globals__)[""]  # fmt: skip
    found = [each for each in (hint, *get_args(hint)) if isinstance(each, type) and not _is_elsewhere(each)]
    return [each for each in found if each.__name__ not in align_cache.__all__]


def _members(cls: type) -> Iterator[tuple[str, str]]:
    """Public members that this package defines, not those of a base from elsewhere."""
    own = [each for each in cls.__mro__ if not _is_elsewhere(each)]
    names = {name for each in own for name in (*vars(each), *inspect.get_annotations(each), *_assigned(each))}
    for name in sorted(names):
        if not name.startswith(("_", *WRITING.get(cls.__name__, ()))):
            own_value = getattr(cls, name, None)
            yield name, _signature(own_value) if callable(own_value) else "attribute"


def _is_elsewhere(cls: type) -> bool:
    return not cls.__module__.startswith("align_cache")


def _assigned(cls: type) -> set[str]:
    """Attributes that ``__init__`` gives to every object, where it is written out."""
    if "__init__" not in vars(cls) or is_dataclass(cls):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(vars(cls)["__init__"])))
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in stored if isinstance(node.ctx, ast.Store)}


def _signature(value: Any) -> str:
    """Names, kinds and defaults of what a call takes; annotations may become more exact."""
    shown = []
    for parameter in inspect.signature(value).parameters.values():
        head = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = "" if parameter.default is parameter.empty else f"={_text(parameter.default)}"
        shown.append(f"{head}{parameter.name}{default}")
    return f"({', '.join(shown)})"


def _text(default: Any) -> str:
    if isinstance(default, Path):
        return default.as_posix()
    return default.__name__ if callable(default) else repr(default)


def _commands() -> Iterator[tuple[str, str]]:
    yield from _command("align-cache", typer.main.get_command(app))


def _command(line: str, command: Any) -> Iterator[tuple[str, str]]:
    hints = get_type_hints(command.callback) if command.callback else {}
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _command(f"{line} {name}", inner)
    else:
        yield f"command: {line}", "command"
    for parameter in command.params:
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])
        spelled = names if names.startswith("-") else names.upper()
        yield f"command: {line} {spelled}", _parameter(parameter, hints.get(parameter.name))


def _parameter(parameter: Any, hint: Any) -> str:
    takes = "flag" if getattr(parameter, "is_flag", False) else _taken(hint)
    if parameter.required:
        return f"{takes}, required"
    default = parameter.default
    absent = callable(default) or default is None or default is False or default in ((), [])
    return takes if absent else f"{takes} = {default}"


def _taken(hint: Any) -> str:
    """What a type hint of a command lets one type."""
    parts = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) is Literal:
        return "|".join(map(str, parts))
    if get_origin(hint) is list:
        return f"{_taken(parts[0])}, several"
    return _taken(parts[0]) if parts else hint.__name__.lower()


def _settings() -> Iterator[tuple[str, str]]:
    for name, model in SETTINGS.items():
        yield from _fields(f"setting: {name} ", model)


def _fields(place: str, model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    shapes = model.model_json_schema()["properties"]
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(f"{place}{key}.", field.annotation)
        else:
            default = "required" if field.is_required() else f"= {_text(field.default)}"
            takes = kind(shapes[key])
            yield f"{place}{key}", f"{takes} {default}"


def fill(page: str) -> str:
    """Give the page with its table of names as they are now."""
    rows = "".join(f"| `{name}` | {_first_line(name)} |\n" for name in align_cache.__all__)
    table = f"| name | what |\n| --- | --- |\n{rows}"
    return re.sub(
        r"(<!-- names -->\n).*?(<!-- end -->)",
        lambda found: found[1] + table + found[2],
        page,
        flags=re.DOTALL,
    )


def _first_line(name: str) -> str:
    if name == "__version__":
        return "The version, a string."
    line = (inspect.getdoc(getattr(align_cache, name)) or "").partition("\n")[0]
    return re.sub(r":\w+:(?=`)", "", line.replace("``", "`")).replace("|", "\\|")


if __name__ == "__main__":
    RECORD.write_text(json.dumps(surface(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
