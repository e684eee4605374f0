"""Where the time of an extraction goes: counted by stage, recorded, named."""

import json
from pathlib import Path

import pytest

from align_cache.extraction import stages
from align_cache.extraction.extracting import extract
from align_cache.extraction.stages import Stages, bottleneck
from align_cache.settings import ExtractConfig


def test_each_stage_is_given_the_time_between_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 10.0, 10.5, 20.0, 23.0, 30.0, 30.25])
    monkeypatch.setattr(stages.time, "perf_counter", lambda: next(clock))
    counted = Stages()
    with pytest.raises(ValueError, match="stop"), counted.timing("model"):
        raise ValueError("stop")
    assert list(counted.waiting("decode", iter("ab"))) == ["a", "b"]
    assert counted.seconds == {"model": 2.0, "decode": 3.75}


def test_the_bottleneck_is_the_stage_that_took_longest() -> None:
    assert bottleneck({"decode": 6.0, "resnet18": 3.0, "write": 1.0}) == (
        "decode 60%, resnet18 30%, write 10%; the longest: decode"
    )
    assert bottleneck({"model": 0.0}) == "model 0%; the longest: model"


def test_every_feature_set_records_its_stages(cache_dir: Path) -> None:
    config = ExtractConfig(dataset="shapes", encoders=("small-cnn", "small-vit", "small-text", "tokens"),
                           weights={"small-cnn": "random", "small-vit": "random", "small-text": "random"},
                           options={"count": 3, "image_size": 16}, device="cpu")  # fmt: skip
    made = {result.encoder: result for result in extract(config, cache_dir=cache_dir)}
    expected = {"small-cnn": ["decode", "model", "write"], "small-vit": ["decode", "model", "write"],
                "small-text": ["model", "write"], "tokens": ["tokenize", "write"]}  # fmt: skip
    for encoder, result in made.items():
        recorded = json.loads((result.folder / "provenance.json").read_text())["stages"]
        assert list(result.stages) == expected[encoder]
        assert sorted(recorded) == sorted(expected[encoder])
        assert sum(result.stages.values()) <= result.seconds
    assert made["small-cnn"].stages["decode"] == made["small-vit"].stages["decode"]
    again = extract(config, cache_dir=cache_dir)
    assert [dict(result.stages) for result in again] == [{}, {}, {}, {}]
