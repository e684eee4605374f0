from typing import Any

import pytest

from align_cache.encoders.preprocessor import read_preprocessor
from align_cache.errors import EncoderError

NORMAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3},
         (256, 224, "bicubic")),
        ({"size": {"height": 224, "width": 224}, "resample": 2}, (None, 224, "bilinear")),
        ({"size": 224, "resample": 3, "do_center_crop": False}, (None, 224, "bicubic")),
        ({"size": 248, "crop_size": 224, "do_center_crop": True}, (248, 224, "bilinear")),
        ({"size": {"height": 224, "width": 224}, "crop_size": 224}, (None, 224, "bilinear")),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}, (256, 224, "bicubic")),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3}, (None, 384, "bicubic")),
    ],
)  # fmt: skip
def test_each_way_of_saying_sizes_is_understood(settings: dict[str, Any], expected: tuple[Any, ...]) -> None:
    preprocess, mean, std = read_preprocessor(settings | NORMAL, owner="x")
    assert (preprocess.resize, preprocess.crop, preprocess.interpolation) == expected
    assert (mean, std) == (NORMAL["image_mean"], NORMAL["image_std"])


def test_no_normalisation_is_mean_0_and_deviation_1() -> None:
    _, mean, std = read_preprocessor({"size": 8, "do_normalize": False}, owner="x")
    assert (tuple(mean), tuple(std)) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 8, "resample": 1},
        {"size": 8, "rescale_factor": 1 / 127.5},
        {"size": 8, "do_resize": False},
        {"size": {"shortest_edge": 8}},
        {"size": {"height": 8, "width": 9}},
        {"size": {"longest_edge": 8}},
        {"size": {"height": 9, "width": 9}, "crop_size": 8},
        {"size": {"shortest_edge": 8}, "crop_size": 9},
        {"size": 8, "crop_size": 9},
        {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 9}},
        {},
    ],
)
def test_what_is_no_square_at_the_usual_scale_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(EncoderError, match="x: "):
        read_preprocessor(NORMAL | settings, owner="x")


def test_three_channels_are_expected() -> None:
    with pytest.raises(EncoderError, match="three values"):
        read_preprocessor({"size": 8, "image_mean": [0.5], "image_std": [0.5]}, owner="x")
