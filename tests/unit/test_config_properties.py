"""Whatever the settings: written as TOML and read again, or spelt as dotted assignments, they stay."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import tomli_w
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from align_cache.config import (
    Layer,
    dotted,
    file_layer,
    flag_layer,
    resolve,
    set_layer,
    setting_names,
    to_toml,
)
from align_cache.errors import ConfigError
from align_cache.settings import EvalConfig, ExtractConfig, FitConfig

REQUIRED: dict[type[BaseModel], dict[str, Any]] = {
    ExtractConfig: {"dataset": "shapes", "encoders": ["small-cnn", "small-text"]},
    FitConfig: {},
    EvalConfig: {},
}
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda s: s != "none"
)
names = st.text("abcdefgh_", min_size=1, max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False)
few = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)


@pytest.fixture(scope="module", autouse=True)
def _simple_types() -> None:
    """What a setting of one of these types may hold; bounds and choices come from the models."""
    st.register_type_strategy(str, words)
    st.register_type_strategy(Path, words.filter(lambda text: "\0" not in text).map(Path))


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def values_of(key: str, field: FieldInfo) -> st.SearchStrategy[Any]:
    if key == "options":
        return st.dictionaries(names, st.integers() | numbers | words | st.booleans(), max_size=3)
    if key == "weights":
        return st.dictionaries(st.sampled_from(["*", "small-cnn"]), words, max_size=2)
    bounded: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return st.from_type(bounded)


@st.composite
def configs(draw: st.DrawFn, model: type[BaseModel]) -> BaseModel:
    """A config with some settings changed; those that contradict each other are not configs."""
    fields = dict(leaves(model))
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), max_size=5, unique=True))
    changed = {key: draw(values_of(key, fields[key])) for key in chosen}
    try:
        return resolve(model, [flag_layer({**REQUIRED[model], **changed})])
    except ConfigError:
        assume(False)
        raise


def refusal(model: type[BaseModel], layer: Layer) -> str | None:
    """What is said against some settings; None where they are taken. Any other exception is a fault."""
    try:
        resolve(model, [layer])
    except ConfigError as error:
        return error.message
    return None


every_model = pytest.mark.parametrize("model", REQUIRED, ids=lambda model: model.__name__)


@every_model
@few
@given(st.data())
def test_a_config_survives_toml(model: type[BaseModel], data: st.DataObject) -> None:
    config = data.draw(configs(model))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.toml"
        file.write_text(to_toml(config), encoding="utf-8", newline="")
        assert resolve(model, [file_layer(file)]) == config


@every_model
@few
@given(st.data())
def test_a_config_survives_being_spelt_as_dotted_assignments(
    model: type[BaseModel], data: st.DataObject
) -> None:
    config = data.draw(configs(model))
    values = dotted(config.model_dump(mode="json"))
    assignments = [
        f"{key}=none" if value is None else tomli_w.dumps({"value": value}).replace("value", key, 1)
        for key, value in values.items()
        if value != {}
    ]
    assert resolve(model, [set_layer(assignments)]) == config


@every_model
@few
@given(st.data())
def test_a_value_of_any_kind_for_any_setting_is_taken_or_refused_with_its_name(
    model: type[BaseModel], data: st.DataObject
) -> None:
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=4,
    )
    key = data.draw(st.sampled_from(sorted(setting_names(model))))
    value = data.draw(anything)
    message = refusal(model, flag_layer({**REQUIRED[model], key: value}))
    assert message is None or key.partition(".")[0] in message or key.rpartition(".")[2] in message


@few
@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_assignments_are_read_or_refused(assignments: list[str]) -> None:
    try:
        layer = set_layer(assignments)
    except ConfigError:
        return
    assert refusal(FitConfig, layer) != ""
