"""The fast way to pixels against Pillow's: same images, same rules, two levels apart at most."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, Preprocess
from align_cache.encoders.fast_images import BACKEND, decode_fast, prepare_fast, resize
from align_cache.encoders.images import decode, prepare
from align_cache.errors import SampleError, UsageError
from align_cache.extraction.decoding import Decoder
from align_cache.extraction.extracting import extract
from align_cache.settings import ExtractConfig
from align_cache.sources.base import ImageSample, Source

BICUBIC, BILINEAR = Preprocess(64, 56, "bicubic", BACKEND), Preprocess(37, 32, "bilinear", BACKEND)
SQUASH = Preprocess(None, 40, "bicubic", BACKEND)
DARK = np.zeros((2, 2, 3), np.uint8)


def smooth(width: int, height: int) -> Image.Image:
    """Colours that change slowly, as in photographs, between dark and bright but neither black nor white."""
    levels = np.random.default_rng(width * 1000 + height).integers(70, 186, (7, 5, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif.tobytes())


def palette() -> bytes:
    return encoded(smooth(60, 50).quantize(16), "PNG", transparency=3)


EXOTIC = {
    "grey": lambda: encoded(smooth(61, 47).convert("L")),
    "cmyk": lambda: encoded(smooth(61, 47).convert("CMYK")),
    "turned": lambda: turned(smooth(61, 47), 6),
    "mirrored": lambda: turned(smooth(61, 47), 2),
    "upright by its tag": lambda: turned(smooth(61, 47), 1),
    "progressive": lambda: encoded(smooth(61, 47), progressive=True),
    "every pixel's own colour": lambda: encoded(smooth(61, 47), subsampling=0),
    "one pixel": lambda: encoded(smooth(1, 1)),
    "palette": palette,
    "png": lambda: encoded(smooth(61, 47), "PNG"),
    "transparent": lambda: encoded(Image.new("RGBA", (5, 4), (9, 80, 200, 51)), "PNG"),
    "gif": lambda: encoded(smooth(20, 30), "GIF"),
}


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    return np.array(image).transpose(2, 0, 1)


@pytest.mark.parametrize("name", EXOTIC)
def test_every_kind_of_file_decodes_to_pillows_very_pixels(name: str) -> None:
    data = EXOTIC[name]()
    np.testing.assert_array_equal(
        decode_fast(data, sample_id="a"), pixels_of(decode(data, sample_id="a")), strict=True
    )


def test_only_plain_upright_jpegs_go_to_the_other_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: list[str] = []
    for name, make in EXOTIC.items():
        monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, name=name, **__: theirs.append(name) or DARK)
        decode_fast(make(), sample_id=name)
    assert theirs == ["grey", "upright by its tag", "progressive", "every pixel's own colour", "one pixel"]


@pytest.mark.parametrize("damage", ["cut", "header only", "empty", "no image"])
def test_what_is_no_whole_image_is_refused_by_its_id(damage: str) -> None:
    whole = encoded(smooth(200, 150))
    data = {"cut": whole[: len(whole) // 2], "header only": whole[:30], "empty": b"", "no image": b"hello"}
    with pytest.raises(SampleError, match="s7"):
        decode_fast(data[damage], sample_id="s7")


def test_what_simplejpeg_finds_damaged_is_what_pillow_makes_of_it() -> None:
    whole = encoded(smooth(200, 150))
    data = whole[:-2] + b"\x00" * 90 + whole[-2:]
    with pytest.raises(ValueError, match="Corrupt JPEG"):
        simplejpeg.decode_jpeg(data)
    expected = pixels_of(decode(data, sample_id="a"))
    np.testing.assert_array_equal(decode_fast(data, sample_id="a"), expected)


def test_limits_hold_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    data = bytearray(encoded(smooth(16, 16)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (9000).to_bytes(2) + (9500).to_bytes(2)  # by its header
    with pytest.raises(SampleError, match=r"s1: 9500 x 9000 pixels"):
        decode_fast(bytes(data), sample_id="s1")
    with pytest.raises(SampleError, match="sides may differ"):
        decode_fast(encoded(Image.new("RGB", (1, 3000))), sample_id="s1")


def test_without_simplejpeg_extraction_ends_before_a_model_is_loaded(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align_cache.runtime.find_spec", lambda name: None)
    monkeypatch.setattr(
        "align_cache.extraction.encoding.load", lambda *_, **__: pytest.fail("a model was loaded")
    )
    with pytest.raises(UsageError, match="needs simplejpeg") as raised:
        extract(settings(dataset="shapes", options={"count": 2}), cache_dir=cache_dir)
    assert "align-cache[fast]" in str(raised.value.hint)


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (56, 56), (31, 33), (1, 1), (17, 900), (257, 64)])
@pytest.mark.parametrize("preprocess", [BICUBIC, BILINEAR, SQUASH], ids=["bicubic", "bilinear", "squash"])
def test_resized_pixels_are_within_two_levels_of_pillows(
    size: tuple[int, int], preprocess: Preprocess
) -> None:
    image = smooth(*size)
    fast = prepare_fast(pixels_of(image), preprocess)
    plain = prepare(image, preprocess)
    assert fast.shape == (3, preprocess.crop, preprocess.crop)
    assert np.abs(fast.astype(int) - plain).max() <= 2


def test_images_resized_together_are_those_resized_one_by_one() -> None:
    images = np.stack([pixels_of(smooth(32, 31)) + np.uint8(level) for level in range(5)])
    together = resize(torch.from_numpy(images), BICUBIC).numpy()
    for image, square in zip(images, together, strict=True):
        np.testing.assert_array_equal(square, prepare_fast(image, BICUBIC))


def source_of(files: list[bytes | NDArray[np.uint8]]) -> Source:
    images = tuple(ImageSample(f"image-{index}", "0") for index in range(len(files)))
    return Source("toy", "1", images, (), files.__getitem__)


def test_small_images_are_left_to_the_device_and_large_ones_are_not() -> None:
    files: list[bytes | NDArray[np.uint8]] = [
        encoded(smooth(*size), "PNG")
        for size in [(32, 32), (90, 70), (32, 32), (40, 20), (56, 56), (57, 20), (20, 40)]
    ]
    files.insert(2, b"no image")
    with Decoder(source_of(files), [BICUBIC, BILINEAR], workers=2, batch_size=8) as decoder:
        (batch,) = decoder.batches(range(8))
    assert batch.rows == (0, 1, 3, 4, 5, 6, 7)
    assert [sample_id for sample_id, _ in batch.failed] == ["image-2"]
    assert sorted(batch.small) == [0, 2, 3, 4, 6]  # all that is no larger than either square
    for preprocess in (BICUBIC, BILINEAR):
        squares = batch.on_device(preprocess, torch.device("cpu")).numpy()
        for place, row in enumerate(batch.rows):
            alone = prepare_fast(decode_fast(files[row], sample_id="a"), preprocess)
            np.testing.assert_array_equal(squares[place], alone)


def settings(**changes: Any) -> ExtractConfig:
    base: dict[str, Any] = {"encoders": ("small-cnn", "small-vit"), "weights": {"*": "random"},
                            "dataset": "folder", "decode": "fast", "batch_size": 4, "shard_rows": 6,
                            "device": "cpu"}  # fmt: skip
    return ExtractConfig(**base | changes)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of nine pictures of all sorts."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, name in enumerate(["grey", "cmyk", "turned", "progressive", "one pixel", "palette", "png"]):
        (folder / f"{index}.{'png' if name in ('palette', 'png') else 'jpg'}").write_bytes(EXOTIC[name]())
    smooth(300, 200).save(folder / "8.jpg")
    smooth(64, 200).save(folder / "9.jpg")
    return folder


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.h5")}


def test_a_lost_shard_is_made_again_to_the_same_bytes_whatever_the_threads_and_encoders(
    cache_dir: Path, tmp_path: Path, pictures: Path
) -> None:
    first = extract(settings(data_dir=pictures), cache_dir=cache_dir)
    before = {result.encoder: shards(result.folder) for result in first}
    for result in first:
        (result.folder / "shard-00001.h5").unlink()
    again = extract(settings(data_dir=pictures, workers=3), cache_dir=cache_dir)
    assert {result.encoder: shards(result.folder) for result in again} == before
    (alone,) = extract(settings(data_dir=pictures, encoders=("small-vit",)), cache_dir=tmp_path / "alone")
    assert shards(alone.folder) == before["small-vit"]


def test_noise_is_put_on_fast_squares_too(cache_dir: Path, pictures: Path) -> None:
    clean = extract(settings(data_dir=pictures), cache_dir=cache_dir)
    noisy = extract(settings(data_dir=pictures, image_noise="occlusion:5"), cache_dir=cache_dir)
    for one, other in zip(clean, noisy, strict=True):
        assert (one.rows, other.rows) == (9, 9)
        assert shards(one.folder).keys() == shards(other.folder).keys()
        assert shards(one.folder) != shards(other.folder)


def test_the_default_leaves_every_key_as_it_was(cache_dir: Path) -> None:
    plain = settings(dataset="shapes", decode="model", batch_size=64, shard_rows=1024,
                     options={"count": 3, "image_size": 32},
                     encoders=("small-cnn", "small-text"))  # fmt: skip
    fast = plain.model_copy(update={"decode": "fast"})
    keys = [result.key[:8] for result in extract(plain, cache_dir=cache_dir)]
    assert keys == ["c7f8b1d3", "2957397b"]
    image, text = extract(fast, cache_dir=cache_dir)
    assert image.key[:8] != "c7f8b1d3"
    assert (text.key[:8], text.status) == ("2957397b", "already there")  # decodes nothing


def test_features_of_real_photographs_are_those_of_the_models_own_preprocessing(real_data: Path) -> None:
    """The tolerance that docs/encoders.md states, on photographs of the size that Flickr30k's have."""
    weights = str(real_data / "mobilenet_v2-imagenet1k-dequantized.safetensors")
    spec = resolve(EncoderRequest("torchvision:mobilenet_v2", weights))
    encoder = load(spec, device=torch.device("cpu"), dtype=torch.float32)
    assert spec.preprocess is not None
    preprocess = spec.preprocess
    plain, fast = [], []
    for path in sorted((real_data / "flickr8k" / "Images").glob("*.jpg"))[:8]:
        with Image.open(path) as small:
            data = encoded(small.convert("RGB").resize((500, 375), Image.Resampling.BICUBIC), quality=92)
        picture = decode(data, sample_id=path.name)
        plain.append(prepare(picture, preprocess))
        fast.append(prepare_fast(decode_fast(data, sample_id=path.name), preprocess))
    rows = [encoder.encode(torch.from_numpy(np.stack(squares))) for squares in (plain, fast)]
    assert torch.nn.functional.cosine_similarity(*rows).min() > 0.9999
