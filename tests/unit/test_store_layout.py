"""Identity, key, names: the parts of the format that are pure functions."""

import hashlib
import math
from pathlib import Path

import pytest

from align_cache.errors import CacheError
from align_cache.store.layout import (
    differences,
    feature_set_folder,
    identity_key,
    parse_identity,
    shard_slices,
    slug,
)


def test_the_key_is_the_sha256_of_sorted_spaceless_ascii_json():
    text = '{"a":[1,2.5,null,true],"b":{"c":"\\u00e4"}}'
    assert (
        identity_key({"b": {"c": "ä"}, "a": [1, 2.5, None, True]})
        == hashlib.sha256(text.encode()).hexdigest()
    )


def test_the_key_does_not_depend_on_the_order_of_keys_nor_on_tuple_or_list():
    assert identity_key({"a": (1, 2), "b": None}) == identity_key({"b": None, "a": [1, 2]})


@pytest.mark.parametrize("value", [Path("x"), {1: 2}, b"x", object()])
def test_what_json_cannot_hold_is_refused_in_an_identity(value):
    with pytest.raises(CacheError, match="JSON values only"):
        identity_key({"a": value})


def test_nan_is_refused_in_an_identity():
    with pytest.raises(ValueError, match="JSON"):
        identity_key({"a": math.nan})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", "resnet18"),
        ("torchvision:mobilenet_v2", "torchvision-mobilenet_v2"),
        ("hf:facebook/dinov2-base", "hf-facebook-dinov2-base"),
        ("../../etc/passwd", "etc-passwd"),
        ("..hidden", "hidden"),
        ("x" * 300, "x" * 80),
    ],
)
def test_a_slug_is_one_readable_folder_name(name, expected):
    assert slug(name) == expected


@pytest.mark.parametrize("name", ["", ".", "..", "//", "日本", "-."])
def test_a_name_with_nothing_readable_is_refused(name):
    with pytest.raises(CacheError, match="cannot name a folder"):
        slug(name)


def test_names_with_one_slug_lie_in_different_folders(toy_identity):
    a, b = (feature_set_folder(Path("c"), toy_identity(encoder=name)) for name in ("hf:a/b", "hf:a-b"))
    assert a != b
    assert a.name.rpartition("-")[0] == b.name.rpartition("-")[0] == "hf-a-b"


def test_the_folder_carries_the_head_of_the_key(toy_identity):
    identity = toy_identity()
    expected = Path("cache/features/toy") / f"flat-{identity_key(identity)[:8]}"
    assert feature_set_folder(Path("cache"), identity) == expected


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("format", 2),
        ("dataset", {"name": "toy"}),
        ("encoder", {"name": "flat"}),
        ("encoder", {"name": "flat", "modality": "sound"}),
        ("storage", {"dtype": "bfloat16", "normalised": True, "shard_rows": 4}),
        ("storage", {"dtype": "float16", "normalised": False, "shard_rows": 4}),
        ("storage", {"dtype": "float16", "normalised": True, "shard_rows": 0}),
        ("extra", 1),
    ],
)
def test_an_identity_of_another_structure_is_refused(toy_identity, part, change):
    with pytest.raises(CacheError, match=part):
        parse_identity(toy_identity() | {part: change})


def test_a_dataset_without_rows_is_refused(toy_identity):
    with pytest.raises(CacheError, match=r"dataset\.rows"):
        parse_identity(toy_identity(rows=0))


@pytest.mark.parametrize(
    ("rows", "shard_rows", "expected"),
    [(1, 4, [(0, 1)]), (4, 4, [(0, 4)]), (5, 4, [(0, 4), (4, 5)]), (3, 1, [(0, 1), (1, 2), (2, 3)])],
)
def test_shards_cover_every_row_once(toy_identity, rows, shard_rows, expected):
    slices = shard_slices(toy_identity(rows=rows, shard_rows=shard_rows))
    assert [(part.start, part.stop) for part in slices] == expected


def test_differences_name_the_path_and_both_values(toy_identity):
    a, b = toy_identity(batch=8, mode={"x": 1}), toy_identity(batch=16, dtype="float32")
    assert differences(a, b) == [
        ("compute.batch", 8, 16),
        ("compute.mode.x", 1, None),
        ("storage.dtype", "float16", "float32"),
    ]
    assert differences(a, a) == []
