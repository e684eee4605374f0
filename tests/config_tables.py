"""The tables of docs/configuration.md, made from the settings themselves.

    python -m tests.config_tables

writes them into the page, each between its ``<!-- table NAME -->`` and the next ``<!-- end -->``.
"""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from align_cache.settings import (
    LINEAR_PRESET,
    AdapterSettings,
    DataSettings,
    EvalConfig,
    EvaluationSettings,
    ExtractConfig,
    FitConfig,
    LogSettings,
    LossSettings,
    OptimSettings,
    StressConfig,
    StudyConfig,
    SweepConfig,
)

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

SECTIONS: dict[str, type[BaseModel]] = {
    "extract": ExtractConfig,
    "fit": FitConfig,
    "data": DataSettings,
    "adapter": AdapterSettings,
    "loss": LossSettings,
    "optim": OptimSettings,
    "evaluation": EvaluationSettings,
    "log": LogSettings,
    "sweep": SweepConfig,
    "study": StudyConfig,
    "eval": EvalConfig,
    "stress": StressConfig,
}
UNDOTTED = {"extract", "fit", "sweep", "study", "eval", "stress"}
"""Whole configs; the others are sections of ``fit``, whose keys are called by section and name."""


def fill(page: str) -> str:
    """Give the page with every table as the settings have it now."""
    return re.sub(
        r"(<!-- table (\w+) -->\n).*?(<!-- end -->)",
        lambda found: found[1] + table(found[2]) + found[3],
        page,
        flags=re.DOTALL,
    )


def table(name: str) -> str:
    model = SECTIONS[name]
    shapes = model.model_json_schema()["properties"]
    marked = model is ExtractConfig
    lines = ["| key | type | default | what |" + (" decides the features |" if marked else "")]
    lines.append("| --- " * (5 if marked else 4) + "|")
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        dotted = key if name in UNDOTTED else f"{name}.{key}"
        cells = [f"`{dotted}`", kind(shapes[key]), _default(name, key, field), _text(field)]
        if marked:
            cells.append("yes" if shapes[key]["role"] == "identity" else "no")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def kind(shape: dict[str, Any]) -> str:
    """Say what values a JSON schema allows, in words."""
    if "anyOf" in shape:
        return " or ".join(kind(choice) for choice in shape["anyOf"])
    if "enum" in shape or "const" in shape:
        return ", ".join(f"`{value}`" for value in shape.get("enum", [shape.get("const")]))
    if "type" not in shape:
        return "any value"  # of the setting that a study names
    if shape["type"] == "array":
        return f"list of {kind(shape['items'])}"
    names = {"null": "`none`", "object": "table", "string": "text"}
    name = "path" if shape.get("format") == "path" else names.get(shape["type"], shape["type"])
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {_number(shape[key])}" for key, sign in bounds.items() if key in shape]
    return " ".join([name, " and ".join(limits)]).strip()


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(section: str, key: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = _spelled(field.default)
    preset = LINEAR_PRESET.get(section, {})
    return f"{default}; linear: {_spelled(preset[key])}" if key in preset else default


def _spelled(value: Any) -> str:
    if value is None:
        return "`none`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _text(field: FieldInfo) -> str:
    words = " ".join((field.description or "").split())
    return words.replace("``", "`").replace("None", "`none`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
