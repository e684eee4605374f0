"""What others build on stays as docs/stability.md promises."""

import json

import pytest

import align_cache
from tests.surface import PAGE, RECORD, fill, surface


@pytest.fixture(scope="module")
def now() -> dict[str, str]:
    return surface()


@pytest.fixture(scope="module")
def recorded() -> dict[str, str]:
    read: dict[str, str] = json.loads(RECORD.read_text(encoding="utf-8"))
    return read


def broken(recorded: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    return {place: now.get(place, "gone") for place, what in recorded.items() if now.get(place) != what}


def test_nothing_that_others_build_on_is_gone_or_changed(
    recorded: dict[str, str], now: dict[str, str]
) -> None:
    assert not broken(recorded, now), (
        "docs/stability.md says how this may be done; then: python -m tests.surface"
    )


def test_what_is_new_is_recorded(recorded: dict[str, str], now: dict[str, str]) -> None:
    assert not sorted(now.keys() - recorded.keys()), "write it down: python -m tests.surface"


def test_the_api_page_lists_every_public_name_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in align_cache.__all__)
    assert page == fill(page), "docs/api.md is out of date; run: python -m tests.surface"


def test_a_name_a_default_and_a_parameter_that_change_are_noticed(
    now: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_run(cache_dir: object, run: str = "newest") -> None:
        """Stand in for the function, with a parameter renamed and another default."""

    monkeypatch.setattr(align_cache, "find_run", find_run)
    monkeypatch.setattr(align_cache, "__all__", [name for name in align_cache.__all__ if name != "report"])
    assert broken(now, surface()) == {
        "python: find_run": "(cache_dir, run='newest')",
        "python: report": "gone",
    }


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("python: Run.checkpoints", "attribute"),
        ("command: align-cache cache ls --cache-dir", "path = cache"),
        ("command: align-cache --version", "flag"),
        ("setting: fit optim.epochs", "integer ≥ 1 = 20"),
    ],
)
def test_every_kind_of_thing_that_is_built_on_is_recorded(place: str, what: str, now: dict[str, str]) -> None:
    assert now[place] == what
