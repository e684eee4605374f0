"""The examples in the docstrings of the public names, run one after another on drawn scenes.

They are written for somebody who reads on: each may use what those before it left in ``cache/``. What they
do not import themselves is numpy as ``np``, and ``Path``.
"""

import doctest
from pathlib import Path

import numpy as np
import pytest

import align_cache

IN_ORDER = [
    *("extract", "open_feature_set", "fit_config", "fit", "evaluate"),
    *("AlignedModel", "search", "export", "AdapterTransformer"),
]


def examples(name: str) -> list[doctest.DocTest]:
    """The examples of a public name, of the methods of a class too."""
    given = {"np": np, "Path": Path}
    found = doctest.DocTestFinder().find(getattr(align_cache, name), name, globs=given)
    return [test for test in found if test.examples]


def test_every_name_with_an_example_has_its_turn() -> None:
    assert {name for name in align_cache.__all__ if examples(name)} == set(IN_ORDER)


def test_the_examples_of_the_public_names_say_what_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    runner = doctest.DocTestRunner()
    for test in (test for name in IN_ORDER for test in examples(name)):
        runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
