"""Every kind of bad sample: `--on-error fail` stops and names it, `skip` leaves it out and records why."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align_cache.errors import AlignCacheError, NonFiniteError, SampleError
from align_cache.extraction import encoding, planning
from align_cache.extraction.extracting import Extracted, extract
from align_cache.settings import ExtractConfig
from align_cache.sources.base import Source
from align_cache.store import FeatureSet
from tests.unit.test_security import EPS

BAD = "p3.img"


def run(cache_dir: Path, folder: Path, **changes: Any) -> list[Extracted]:
    settings = {
        "dataset": "folder", "data_dir": folder, "encoders": ("small-cnn",), "weights": {"*": "random"},
        "shard_rows": 4, "batch_size": 2, "device": "cpu",
    }  # fmt: skip
    return extract(ExtractConfig(**{**settings, **changes}), cache_dir=cache_dir)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven pictures with a caption each, the captions of two of them empty."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (7, 40, 50, 3), dtype=np.uint8)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "caption"])
        for i in range(7):
            (folder / f"p{i}.img").write_bytes(encoded(Image.fromarray(pixels[i])))
            rows.writerow([f"p{i}.img", "" if i in (2, 3) else f"picture {i}"])
    return folder


def claiming_400_megapixels() -> bytes:
    data = bytearray(encoded(Image.new("1", (8, 8)), "BMP"))
    data[18:26] = (20_000).to_bytes(4, "little") * 2
    return bytes(data)


def noise(form: str) -> bytes:
    return encoded(
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 60, 3), dtype=np.uint8)), form
    )


BAD_IMAGES: dict[str, tuple[bytes, str]] = {
    "no byte": (b"", "the image file is empty"),
    "text": (b"no picture", "10 bytes that are no JPEG"),
    "header of a JPEG": (noise("JPEG")[:20], BAD),
    "half a JPEG": (noise("JPEG")[:2500], "cannot be decoded"),
    "half a PNG": (noise("PNG")[:2500], "cannot be decoded"),
    "400 megapixels": (claiming_400_megapixels(), "20000 x 20000 pixels|bomb"),
    "a line": (encoded(Image.new("RGB", (1, 3000))), "1 x 3000 pixels"),
    "floats beyond 1": (encoded(Image.new("F", (30, 30), 7.0), "TIFF"), "outside 0 to 1"),
    "a program": (EPS, "are no JPEG"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_an_image_that_cannot_be_read_stops_the_work_or_is_left_out(
    kind: str, pictures: Path, cache_dir: Path
) -> None:
    data, found = BAD_IMAGES[kind]
    (pictures / BAD).write_bytes(data)
    with pytest.raises(SampleError, match=found) as caught:
        run(cache_dir, pictures)
    assert BAD in caught.value.message
    (done,) = run(cache_dir, pictures, on_error="skip")
    assert done.skipped == ((BAD, caught.value.message),)
    assert FeatureSet.open(done.folder).sample_ids.tolist() == [f"p{i}.img" for i in (0, 1, 2, 4, 5, 6)]


def test_an_image_that_vanishes_after_the_start_stops_the_work_or_is_left_out(
    pictures: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, content = planning.open_source, (pictures / BAD).read_bytes()

    def opened_and_gone(*args: Any, **options: Any) -> Source:
        (pictures / BAD).write_bytes(content)
        source = opened(*args, **options)
        (pictures / BAD).unlink()
        return source

    monkeypatch.setattr(planning, "open_source", opened_and_gone)
    with pytest.raises(SampleError, match=f"{BAD}: cannot be read: No such file"):
        run(cache_dir, pictures)
    (done,) = run(cache_dir, pictures, on_error="skip")
    assert done.skipped == ((BAD, f"{BAD}: cannot be read: No such file or directory"),)


def test_every_image_may_be_bad(pictures: Path, cache_dir: Path) -> None:
    for path in pictures.glob("*.img"):
        path.write_bytes(b"no picture")
    (done,) = run(cache_dir, pictures, on_error="skip")
    assert (done.rows, len(done.skipped)) == (0, 7)
    assert FeatureSet.open(done.folder).array().shape == (0, done.dim)


Spoil = Callable[[torch.Tensor], None]
SPOILT: dict[str, tuple[Spoil, str]] = {
    "NaN": (lambda row: row[3:4].fill_(float("nan")), "not finite"),
    "infinity": (lambda row: row[0:1].fill_(float("-inf")), "not finite"),
    "zeros": (lambda row: row.zero_(), "all zero"),
}


@pytest.mark.parametrize("encoder", ["small-cnn", "small-text"])
@pytest.mark.parametrize("kind", SPOILT)
def test_features_without_a_direction_stop_the_work_or_are_left_out(
    kind: str, encoder: str, pictures: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, found = SPOILT[kind]
    loaded = encoding.load

    def spoiling(*args: Any, **options: Any) -> Any:
        model = loaded(*args, **options)
        encode = model.encode

        def encode_and_spoil(*args: Any, **options: Any) -> Any:
            result = encode(*args, **options)
            features = (result[0] if isinstance(result, tuple) else result).clone()
            if len(features) > 1:
                spoil(features[1])
            return (features, *result[1:]) if isinstance(result, tuple) else features

        monkeypatch.setattr(model, "encode", encode_and_spoil)
        return model

    monkeypatch.setattr(encoding, "load", spoiling)
    with pytest.raises(NonFiniteError, match=rf"{encoder} gives features that are {found} for p1\.img"):
        run(cache_dir, pictures, encoders=(encoder,))
    (done,) = run(cache_dir, pictures, encoders=(encoder,), on_error="skip")
    assert done.skipped
    assert all(found in reason for _, reason in done.skipped)
    assert done.rows + len(done.skipped) == 7
    assert np.isfinite(FeatureSet.open(done.folder).array()).all()


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_an_empty_caption_is_no_error_but_kept_and_counted(
    on_error: str, pictures: Path, cache_dir: Path
) -> None:
    (done,) = run(cache_dir, pictures, encoders=("small-text",), on_error=on_error)
    assert (done.rows, done.skipped) == (7, ())
    assert done.counts["empty"] == 2


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_what_no_caption_can_be_is_refused_before_any_work_however_errors_are_taken(
    on_error: str, pictures: Path, cache_dir: Path
) -> None:
    (pictures / "captions.csv").unlink()
    (pictures / "captions.jsonl").write_text('{"file_name": "p1.img", "caption": null}\n')
    with pytest.raises(AlignCacheError, match=r"p1\.img"):
        run(cache_dir, pictures, encoders=("small-text",), on_error=on_error)
    assert not list(cache_dir.glob("features/*/*/*"))


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_listed_image_that_is_not_there_is_refused_before_any_work_however_errors_are_taken(
    on_error: str, pictures: Path, cache_dir: Path
) -> None:
    (pictures / BAD).unlink()
    with pytest.raises(AlignCacheError, match=r"1 of 7 listed images are not in .* the first is p3\.img"):
        run(cache_dir, pictures, on_error=on_error)
    assert not list(cache_dir.glob("features/*/*/*"))
