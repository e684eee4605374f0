"""Bring your own features: what is taken as it is, what is normalised, what is refused."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from align_cache.errors import AlignCacheError, CacheError, NonFiniteError, SourceError, UsageError
from align_cache.extraction.external import import_features
from align_cache.store import FeatureSet, find, open_feature_set
from align_cache.store.verify import verify


@pytest.fixture
def arrays(unit_rows) -> dict[str, np.ndarray]:
    return {"sample_id": np.array(["a", "b", "ç"]), "features": unit_rows(3)}


@pytest.fixture
def load(tmp_path, cache_dir):
    """Import arrays from an .npz."""

    def run(arrays, modality="image", **options):
        np.savez(tmp_path / "mine.npz", **arrays)
        options = {"dataset": "own", "encoder": "glove"} | options
        return import_features(tmp_path / "mine.npz", modality=modality, cache_dir=cache_dir, **options)

    return run


def test_every_array_comes_back_and_splits_get_their_usual_names(load, arrays):
    more = {
        "group_id": np.array(["x", "x", "y"]),
        "split": np.array(["dev", "TRAIN", ""]),
        "label": np.array([2, 0, 1], np.int16),
        "text": np.array(["", "ein Bär", "熊"]),
    }
    features = FeatureSet.open(load(arrays | more, modality="text").folder)
    assert features.sample_ids.tolist() == ["a", "b", "ç"]
    assert features.group_ids.tolist() == ["x", "x", "y"]
    assert features.splits.tolist() == ["val", "train", ""]
    assert features.labels.tolist() == [2, 0, 1]
    assert features.texts.tolist() == ["", "ein Bär", "熊"]
    assert (features.modality, features.untrained) == ("text", False)
    np.testing.assert_array_equal(features.array(), arrays["features"].astype(np.float16))


def test_unit_rows_are_kept_to_the_bit_and_the_others_normalised_and_counted(load, arrays):
    features = arrays["features"].copy()
    features[1] *= 40
    imported = load(arrays | {"features": features}, dtype="float32")
    assert imported.manifest.counts == {"normalised": 1}
    stored = FeatureSet.open(imported.folder).array()
    np.testing.assert_array_equal(stored[[0, 2]], features[[0, 2]])
    np.testing.assert_allclose(stored[1], arrays["features"][1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("scale", [1, 1.0006, 0.9994, 300])
def test_features_of_any_float_dtype_and_norm_are_taken(load, arrays, dtype, scale):
    imported = load(arrays | {"features": (arrays["features"] * scale).astype(dtype)})
    stored = FeatureSet.open(imported.folder).array().astype(np.float32)
    np.testing.assert_allclose(stored, arrays["features"], atol=2e-3)
    assert verify(imported.folder) == []


def test_the_same_content_again_is_already_there_and_other_content_is_another_set(load, arrays, cache_dir):
    assert not load(arrays).already_there
    again = load(arrays)
    assert again.already_there
    assert not load(arrays, overwrite=True).already_there
    changed = arrays["features"].copy()
    changed[0] = changed[1]
    assert load(arrays | {"features": changed}).folder != again.folder
    assert load(arrays | {"sample_id": np.array(["a", "b", "d"])}).folder != again.folder
    assert load(arrays, dtype="float32").folder != again.folder
    assert len(find(cache_dir)) == 4


def test_importing_again_mends_a_damaged_set(load, arrays):
    folder = load(arrays).folder
    before = (folder / "shard-00000.h5").read_bytes()
    (folder / "shard-00000.h5").write_bytes(before[:-1])
    assert not load(arrays).already_there
    assert (folder / "shard-00000.h5").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "modality", "error", "match"),
    [
        ({"features": None}, "image", UsageError, "has no array features"),
        ({"sample_id": None, "labels": np.arange(3)}, "image", UsageError,
         r"has no array sample_id; has an unknown array labels \(meant: label\?\)"),
        ({}, "text", UsageError, "has no array group_id"),
        ({"features": np.ones(3)}, "image", SourceError, r"shape \(3,\), expected \(rows, dim\)"),
        ({"features": np.ones((0, 4)), "sample_id": np.array([], str)}, "image", SourceError, r"\(0, 4\)"),
        ({"features": np.ones((3, 4), int)}, "image", SourceError, "are int64, expected float16"),
        ({"features": np.full((3, 2), 1e300)}, "image", NonFiniteError, "sample 'a' has NaN"),
        ({"features": np.array([[1, 0], [0, np.nan], [0, 1]])}, "image", NonFiniteError, "'b' has NaN"),
        ({"features": np.array([[1.0, 0], [0, 1], [0, 0]])}, "image", SourceError, "'ç' has a zero"),
        ({"sample_id": np.array([1, 2, 3])}, "image", SourceError, "expected 3 values of text"),
        ({"sample_id": np.array(["a", "b"])}, "image", SourceError, r"is <U1 \(2,\), expected 3 values"),
        ({"sample_id": np.array(["a", "b", "a"])}, "image", CacheError, "sample_id 'a' stands twice"),
        ({"sample_id": np.array(["a", "", "c"])}, "image", CacheError, "sample_id of sample '' is empty"),
        ({"sample_id": np.array(["a", "\ud800", "c"])}, "image", CacheError, "holds a lone surrogate"),
        ({"label": np.array([0.5, 1, 2])}, "image", SourceError, "expected 3 values of integers"),
        ({"label": np.array([0, 1, 2**63], "u8")}, "image", CacheError, "label of sample 'ç' is 922337"),
        ({"split": np.array([b"a", b"b", b"c"])}, "image", SourceError, "expected 3 values of text"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused_by_name(load, arrays, cache_dir, change, modality, error, match):
    changed = {name: value for name, value in (arrays | change).items() if value is not None}
    with pytest.raises(error, match=match):
        load(changed, modality=modality)
    assert find(cache_dir) == []


def test_a_link_to_a_file_is_as_good_as_the_file(load, arrays, tmp_path, cache_dir):
    imported = load(arrays)
    (tmp_path / "link.npz").symlink_to(tmp_path / "mine.npz")
    again = import_features(
        tmp_path / "link.npz", dataset="own", encoder="glove", modality="image", cache_dir=cache_dir
    )
    assert again.already_there
    assert again.folder == imported.folder


class Canary:
    def __reduce__(self):
        return (Path("canary").touch, ())


def test_a_pickle_inside_the_file_is_never_run(load, arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"cannot be read as \.npz"):
        load(arrays | {"text": np.array([Canary(), "b", "c"], dtype=object)})
    (tmp_path / "mine.npz").write_bytes(pickle.dumps(Canary()))
    with pytest.raises(SourceError, match=r"cannot be read as \.npz"):
        import_features(tmp_path / "mine.npz", dataset="d", encoder="e", modality="image", cache_dir=tmp_path)
    assert not (tmp_path / "canary").exists()


def broken(path: Path, kind: str) -> None:
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    elif kind == "bomb":
        header = (
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }".ljust(117) + "\n"
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "features.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
            )
            archive.writestr("sample_id.npy", b"")
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"hello", "zip": b"PK\x03\x04 torn"}[kind])


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "zip", "npy", "bomb"])
def test_a_file_that_is_no_npz_is_one_line(tmp_path, cache_dir, kind):
    broken(tmp_path / "mine.npz", kind)
    with pytest.raises(AlignCacheError, match=r"mine\.npz") as caught:
        import_features(
            tmp_path / "mine.npz", dataset="d", encoder="e", modality="image", cache_dir=cache_dir
        )
    assert isinstance(caught.value, SourceError)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("file", "encoder", "modality"),
    [
        ("images-mobilenet_v2", "mobilenet_v2", "image"),
        ("images-mobilenet_v1", "mobilenet_v1", "image"),
        ("captions-lsa_glove", "lsa_glove", "text"),
    ],
)
def test_the_real_features_are_stored_to_the_bit(real_data, cache_dir, file, encoder, modality):
    path = real_data / "real-features" / f"{file}.npz"
    import_features(path, dataset="flickr8k-real", encoder=encoder, modality=modality, cache_dir=cache_dir)
    features = open_feature_set("flickr8k-real", encoder, cache_dir=cache_dir)
    with np.load(path) as given:
        np.testing.assert_array_equal(features.array(), given["features"])
        np.testing.assert_array_equal(features.sample_ids, given["sample_id"])
        np.testing.assert_array_equal(
            features.splits, np.where(given["split"] == "dev", "val", given["split"])
        )
        if modality == "text":
            np.testing.assert_array_equal(features.group_ids, given["group_id"])
            np.testing.assert_array_equal(features.texts, given["text"])
