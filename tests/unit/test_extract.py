"""Extraction: what decides a key, what is made again, what an unreadable image does."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align_cache.errors import NonFiniteError, SampleError
from align_cache.extraction.extracting import Extracted, extract
from align_cache.settings import ExtractConfig
from align_cache.store import FeatureSet

BASE: dict[str, Any] = {
    "dataset": "shapes",
    "encoders": ("small-cnn",),
    "weights": {"*": "random"},
    "options": {"count": 20},
    "shard_rows": 8,
    "batch_size": 4,
    "device": "cpu",
}


def run(cache_dir: Path, **changes: Any) -> list[Extracted]:
    return extract(ExtractConfig(**{**BASE, **changes}), cache_dir=cache_dir)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != "provenance.json"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of nine pictures with a caption each, one of them half a JPEG."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(9):
        pixels = generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{i}.jpg")
    whole = (folder / "p5.jpg").read_bytes()
    (folder / "p5.jpg").write_bytes(whole[: len(whole) // 2])
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "caption"])
        writer.writerows([[f"p{i}.jpg", f"picture number {i}"] for i in range(9)])
    return folder


def test_rows_are_unit_norm_in_the_order_of_the_source_with_their_ids(cache_dir: Path) -> None:
    image, text = run(cache_dir, encoders=("small-cnn", "small-text"))
    images, captions = FeatureSet.open(image.folder), FeatureSet.open(text.folder)
    assert (images.rows, captions.rows) == (20, 100)
    for features in (images, captions):
        norms = np.linalg.norm(features.array().astype(np.float32), axis=1)
        assert np.abs(norms - 1).max() < 1e-3
        assert features.untrained
    assert images.splits is not None
    assert set(images.splits) == {"train", "val", "test"}
    assert captions.group_ids is not None
    assert set(captions.group_ids) == set(images.sample_ids)
    assert captions.texts is not None


def test_the_same_again_makes_nothing(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = run(cache_dir)
    before = contents(first.folder)
    monkeypatch.setattr(
        "align_cache.extraction.encoding.load", lambda *_, **__: pytest.fail("a model was loaded")
    )
    (second,) = run(cache_dir)
    assert (first.status, second.status) == ("extracted", "already there")
    assert contents(second.folder) == before


IDENTITY_CHANGES: dict[str, Any] = {
    "dataset": "folder",
    "encoders": ("small-vit",),
    "name": "mine",
    "options": {"count": 21},
    "split": ("train",),
    "limit": 10,
    "weights": {"*": "random:1"},
    "precision": "bf16",
    "dtype": "float32",
    "batch_size": 5,
    "shard_rows": 9,
    "image_noise": "gaussian:3",
    "decode": "fast",
}
NEEDS_OTHER_ENCODERS = {"revision", "tokenizer", "pooling", "max_length", "resize", "templates", "vocabulary"}
NEEDS_OTHER_ENCODERS |= {"caption_noise", "captions_of"}
"""Tested with the encoders and sources that have them."""


@pytest.mark.parametrize("field", IDENTITY_CHANGES)
def test_what_decides_the_features_decides_the_key(field: str, cache_dir: Path, pictures: Path) -> None:
    (base,) = run(cache_dir)
    other: dict[str, Any] = {field: IDENTITY_CHANGES[field]}
    if field == "dataset":
        other |= {"data_dir": pictures, "options": {}, "on_error": "skip"}
    (changed,) = run(cache_dir, **other)
    assert changed.key != base.key
    assert changed.status == "extracted"


def test_every_identity_setting_is_among_those_tried() -> None:
    marked = {
        name
        for name, field in ExtractConfig.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["role"] == "identity"
    }
    assert marked == IDENTITY_CHANGES.keys() | NEEDS_OTHER_ENCODERS


@pytest.mark.parametrize("change", [{"workers": 3}, {"on_error": "skip"}, {"device": "auto"}], ids=str)
def test_what_does_not_decide_them_leaves_key_and_bytes(
    change: dict[str, Any], cache_dir: Path, tmp_path: Path
) -> None:
    (base,) = run(cache_dir)
    (changed,) = run(tmp_path / "other", **change)
    assert changed.key == base.key
    assert contents(changed.folder) == contents(base.folder)


def test_encoders_run_together_give_the_bytes_of_each_alone(cache_dir: Path, tmp_path: Path) -> None:
    together = run(cache_dir, encoders=("small-cnn", "small-vit"))
    alone = [run(tmp_path / name, encoders=(name,))[0] for name in ("small-cnn", "small-vit")]
    for one, other in zip(together, alone, strict=True):
        assert contents(one.folder) == contents(other.folder)


def test_each_image_is_read_once_for_all_encoders(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from align_cache.extraction import decoding

    read: list[str] = []
    decode = decoding.decode
    monkeypatch.setattr(
        decoding,
        "decode",
        lambda data, *, sample_id: (read.append(sample_id), decode(data, sample_id=sample_id))[1],
    )
    run(cache_dir, encoders=("small-cnn", "small-vit"))
    assert len(read) == 20
    assert len(set(read)) == 20


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "manifest"])
def test_only_what_is_damaged_is_made_again_to_the_same_bytes(damage: str, cache_dir: Path) -> None:
    (first,) = run(cache_dir)
    before = contents(first.folder)
    shard = first.folder / "shard-00001.h5"
    data = bytearray(shard.read_bytes())
    if damage == "truncate":
        shard.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[-20] ^= 1
        shard.write_bytes(data)
    elif damage == "delete":
        shard.unlink()
    else:
        (first.folder / "manifest.json").unlink()
    (second,) = run(cache_dir, overwrite=False)
    assert contents(second.folder) == before
    if damage != "flip":  # a flipped bit is found by a reader's checksum, not by the quick look of extract
        assert second.samples_done == (0 if damage == "manifest" else 8)


def test_an_unreadable_image_stops_the_extraction_and_is_named(cache_dir: Path, pictures: Path) -> None:
    with pytest.raises(SampleError, match=r"p5\.jpg"):
        run(cache_dir, dataset="folder", data_dir=pictures, options={})


def test_skipping_leaves_it_out_records_it_and_takes_its_captions_along(
    cache_dir: Path, pictures: Path
) -> None:
    from align_cache.pairing.pairs import join

    image, text = run(
        cache_dir,
        dataset="folder",
        data_dir=pictures,
        options={},
        on_error="skip",
        encoders=("small-cnn", "small-text"),
    )
    assert [sample_id for sample_id, _ in image.skipped] == ["p5.jpg"]
    images, captions = FeatureSet.open(image.folder), FeatureSet.open(text.folder)
    assert images.rows == 8
    assert "p5.jpg" not in images.sample_ids
    joined = join(images, captions, None)
    assert joined.pairs.n_captions == 8
    assert any("1 captions" in note for note in joined.notes)


def test_a_set_with_skipped_samples_does_not_pass_for_a_whole_one(cache_dir: Path, pictures: Path) -> None:
    changes: dict[str, Any] = {"dataset": "folder", "data_dir": pictures, "options": {}}
    run(cache_dir, **changes, on_error="skip")
    with pytest.raises(SampleError, match=r"lacks 1 samples that were skipped, the first p5\.jpg"):
        run(cache_dir, **changes)
    (again,) = run(cache_dir, **changes, on_error="skip")
    assert again.status == "already there"


def test_other_label_names_are_other_features(tmp_path: Path, cache_dir: Path) -> None:
    keys = []
    for names in (("cat", "dog"), ("lion", "wolf")):
        folder = tmp_path / names[0]
        for i, name in enumerate(names):
            (folder / name).mkdir(parents=True)
            Image.new("RGB", (40, 40), (i * 200, 90, 30)).save(folder / name / "a.png")
        (result,) = run(cache_dir, dataset="folder", data_dir=folder, options={})
        keys.append(result.key)
        assert FeatureSet.open(result.folder).label_names == names
    assert keys[0] != keys[1]


def test_an_uncompressed_image_of_the_same_size_and_other_content_has_another_key(
    tmp_path: Path, cache_dir: Path
) -> None:
    folder = tmp_path / "bitmaps"
    folder.mkdir()
    (folder / "captions.csv").write_text("file_name,caption\na.bmp,a square\nb.bmp,a circle\n")
    keys = set()
    for shade in (10, 11):
        for name in ("a", "b"):
            Image.new("RGB", (40, 40), (shade, 90, 30)).save(folder / f"{name}.bmp")
        keys.add(run(cache_dir, dataset="folder", data_dir=folder, options={})[0].key)
    assert len(keys) == 2


def test_an_encoder_named_twice_is_refused(cache_dir: Path) -> None:
    with pytest.raises(ValueError, match="small-cnn is named twice"):
        run(cache_dir, encoders=("small-cnn", "small-cnn"))


def test_features_that_are_no_numbers_name_the_sample_and_the_encoder(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align_cache.extraction import encoding as module

    real_load = module.load

    def broken(*args: Any, **kwargs: Any) -> Any:
        encoder = real_load(*args, **kwargs)
        encode = encoder.encode

        def with_nan(pixels: Any) -> Any:
            features = encode(pixels).clone()
            features[1, 3] = float("nan")
            return features

        monkeypatch.setattr(encoder, "encode", with_nan)
        return encoder

    monkeypatch.setattr(module, "load", broken)
    with pytest.raises(NonFiniteError, match=r"small-cnn gives features that are not finite for \S+"):
        run(cache_dir)
    (skipped,) = run(cache_dir, on_error="skip")
    assert len(skipped.skipped) == 5  # one in each batch of four
    assert FeatureSet.open(skipped.folder).rows == 15
