"""The golden cache: sets that this format version wrote once, which every later version has to read."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from align_cache.store import FeatureSet, find, is_complete, open_feature_set
from align_cache.store.verify import verify
from tests.golden import make

KEYS = {
    "drawn+blur:2": "08d23c34403ec5c268810a6d42bfec54bf26b56bed14186e8a3f4cce21cd776b",
    "tokens": "de89ec0dfcaa6e145937816743ce6c371aa1f5ad42ac26883feb404930f56b07",
}
# Written down here as well, so that a mistake in the script that made them would be seen.
FEATURES = [
    [0, 1, 1, -1, 0, 0, 0, 1], [0, 0, -1, -1, 1, -1, 0, 0],
    [1, 0, -1, 0, 0, -1, 0, 1], [0, 0, 0, 1, -1, -1, -1, 0],
]  # fmt: skip
TOKENS = [[8, 11, 32, 34, 0, 0], [42, 5, 0, 0, 0, 0], [12, 22, 43, 18, 19, 0], [12, 29, 23, 15, 46, 38]]


def files(cache_dir: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(cache_dir)): path.read_bytes()
        for path in sorted(cache_dir.glob("features/*/*/*"))
    }


def test_every_byte_of_it_is_sound_and_it_is_small() -> None:
    assert verify(make.CACHE) == []
    assert sum(len(data) for data in files(make.CACHE).values()) <= 20_000


def test_its_sets_are_found_under_the_keys_that_their_identities_had() -> None:
    assert {stored.manifest.variant: stored.manifest.key for stored in find(make.CACHE)} == KEYS
    for identity in (make.FEATURES, make.TOKENS):
        assert is_complete(make.CACHE, identity) is not None, "an extraction would make it again"


def test_its_features_have_the_values_they_were_given() -> None:
    features = open_feature_set("golden", "drawn+blur:2", cache_dir=make.CACHE)
    assert features.array().dtype == np.float16
    np.testing.assert_array_equal(features.array() * 2, FEATURES)
    assert features.sample_ids.tolist() == ["a.jpg", "b.jpg", "c.jpg", "ä/d.jpg"]
    assert features.labels is not None
    assert features.labels.tolist() == [0, 1, 1, -5]
    assert features.splits is not None
    assert features.splits.tolist() == ["train", "train", "val", ""]
    assert (features.group_ids, features.texts) == (None, None)
    assert features.manifest.skipped == (("e.jpg", "half a JPEG"),)
    assert (features.untrained, features.label_names) == (True, ("cat", "dog"))


def test_its_token_ids_have_the_values_they_were_given() -> None:
    tokens = open_feature_set("golden", "tokens", cache_dir=make.CACHE)
    assert tokens.array().dtype == np.int32
    np.testing.assert_array_equal(tokens.array(), TOKENS)
    assert tokens.vocabulary_size == 50
    assert tokens.texts is not None
    assert tokens.texts.tolist() == ["", "ein Bär", "熊 🐻", "a red square"]
    assert tokens.group_ids is not None
    assert tokens.group_ids.tolist() == ["a.jpg", "b.jpg", "c.jpg", "ä/d.jpg"]
    assert tokens.sample_ids.tolist() == [f"{name}#0" for name in tokens.group_ids.tolist()]
    assert tokens.manifest.counts == {"empty": 1, "truncated": 2}
    assert (tokens.untrained, tokens.label_names) == (False, ())


def test_making_it_again_gives_the_same_rows(cache_dir: Path) -> None:
    make.write(cache_dir)
    for golden, again in zip(find(make.CACHE), find(cache_dir), strict=True):
        assert again.manifest.identity == golden.manifest.identity
        rows = [FeatureSet.open(stored.folder).array() for stored in (golden, again)]
        np.testing.assert_array_equal(*rows)


def test_making_it_again_with_the_same_hdf5_gives_the_same_bytes(cache_dir: Path) -> None:
    written_by = {(stored.provenance() or {})["hdf5"] for stored in find(make.CACHE)}
    if written_by != {h5py.version.hdf5_version}:
        pytest.skip(f"HDF5 is {h5py.version.hdf5_version} here, the golden cache was written by {written_by}")
    make.write(cache_dir)
    assert files(cache_dir) == files(make.CACHE)
