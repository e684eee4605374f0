import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from align_cache.encoders import images
from align_cache.encoders.base import Preprocess
from align_cache.encoders.images import decode, prepare
from align_cache.errors import SampleError


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixel(data: bytes) -> tuple[int, ...]:
    image = decode(data, sample_id="a")
    assert image.mode == "RGB"
    return tuple(int(value) for value in np.asarray(image)[0, 0])


@pytest.mark.parametrize(
    ("mode", "colour", "form", "expected"),
    [
        ("RGB", (10, 20, 30), "PNG", (10, 20, 30)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("1", 1, "PNG", (255, 255, 255)),
        ("LA", (0, 0), "PNG", (255, 255, 255)),
        ("LA", (40, 255), "PNG", (40, 40, 40)),
        ("RGBA", (200, 0, 0, 0), "PNG", (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), "PNG", (200, 0, 0)),
        ("RGBA", (0, 0, 0, 51), "PNG", (204, 204, 204)),
        ("CMYK", (0, 0, 0, 255), "TIFF", (0, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
        ("I;16", 65535, "PNG", (255, 255, 255)),
        ("I;16", 257 * 99, "PNG", (99, 99, 99)),
        ("I;16", 300, "TIFF", (1, 1, 1)),
        ("I", 257 * 99, "TIFF", (99, 99, 99)),
        ("F", 1.0, "TIFF", (255, 255, 255)),
        ("F", 0.5, "TIFF", (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb_by_its_rule(
    mode: str, colour: Any, form: str, expected: tuple[int, ...]
) -> None:
    assert pixel(encoded(Image.new(mode, (3, 2), colour), form)) == expected


def test_a_palette_is_looked_up_and_its_transparent_colour_is_white() -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(encoded(image)) == (10, 200, 30)
    assert pixel(encoded(image, transparency=1)) == (255, 255, 255)
    assert pixel(encoded(image, transparency=bytes([0, 255]))) == (10, 200, 30)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_floats_outside_0_to_1_are_refused(value: float) -> None:
    with pytest.raises(SampleError, match="s1: greyscale values outside 0 to 1"):
        decode(encoded(Image.new("F", (2, 2), value), "TIFF"), sample_id="s1")


def test_integers_outside_16_bits_are_refused() -> None:
    with pytest.raises(SampleError, match="s1: greyscale values outside 0 to 65535"):
        decode(encoded(Image.new("I", (2, 2), 70000), "TIFF"), sample_id="s1")


def test_exif_orientation_is_applied() -> None:
    image = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    turned = decode(encoded(image, exif=exif.tobytes()), sample_id="a")
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


def test_the_first_frame_is_taken_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixel(data) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"not an image at all", "19 bytes that are no JPEG, PNG, .* image"),
        (encoded(noise(64, 64), "JPEG")[:20], "s7"),
        (encoded(noise(64, 64), "JPEG")[:1500], "cannot be decoded"),
        (encoded(noise(64, 64))[:1500], "cannot be decoded"),
    ],
)
def test_what_is_no_whole_image_is_refused_by_its_id(data: bytes, what: str) -> None:
    with pytest.raises(SampleError, match=what) as caught:
        decode(data, sample_id="s7")
    assert "s7" in caught.value.message


def test_every_cut_of_a_jpeg_gives_an_error_of_ours_or_the_whole_picture() -> None:
    whole = encoded(noise(16, 16), "JPEG")
    picture = np.asarray(decode(whole, sample_id="a"))
    for length in range(0, len(whole), 7):
        try:
            cut = decode(whole[:length], sample_id="a")
        except SampleError:
            continue
        assert np.array_equal(np.asarray(cut), picture), length


def test_one_by_3000_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(SampleError, match="1 x 3000 pixels, sides may differ 100-fold"):
        decode(encoded(Image.new("RGB", (1, 3000))), sample_id="a")
    with pytest.raises(SampleError, match="3000 x 1 pixels"):
        decode(np.zeros((1, 3000, 3), np.uint8), sample_id="a")


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (11, 10)))
    monkeypatch.setattr(images, "MAX_PIXELS", 109)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(SampleError, match="11 x 10 pixels, the limit is 109"):
        decode(data, sample_id="a")


def test_a_header_that_claims_400_megapixels_is_refused_without_a_warning() -> None:
    data = bytearray(encoded(Image.new("1", (8, 8)), "BMP"))
    data[18:26] = (20_000).to_bytes(4, "little") * 2
    with pytest.raises(SampleError, match="a"):
        decode(bytes(data), sample_id="a")


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
              np.zeros((0, 4, 3), np.uint8)]
)  # fmt: skip
def test_arrays_that_are_no_rgb_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(SampleError, match="a: expected uint8 RGB"):
        decode(array, sample_id="a")


def test_decoding_leaves_pillow_as_it_was() -> None:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    with pytest.raises(SampleError):
        decode(encoded(noise(64, 64), "JPEG")[:1500], sample_id="a")
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)


def prepare_plainly(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resize everything, then crop: what `prepare` does in one step."""
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    crop = preprocess.crop
    assert preprocess.resize is not None
    scale = preprocess.resize / min(image.size)
    width, height = (round(preprocess.resize) if side == min(image.size) else int(side * scale + 1e-9)
                     for side in image.size)  # fmt: skip
    resized = image.resize((width, height), method[preprocess.interpolation])
    left, top = (width - crop) // 2, (height - crop) // 2
    return np.asarray(resized.crop((left, top, left + crop, top + crop))).transpose(2, 0, 1)


@pytest.mark.parametrize(
    "size", [(500, 375), (333, 500), (224, 224), (31, 33), (1, 1), (17, 900), (257, 256)]
)
@pytest.mark.parametrize(
    "preprocess",
    [Preprocess(256, 224, "bicubic"), Preprocess(235, 224, "bilinear"), Preprocess(64, 64, "bilinear")],
)
def test_resizing_the_crop_alone_gives_what_resizing_and_cropping_gives(
    size: tuple[int, int], preprocess: Preprocess
) -> None:
    # Levels from 64 to 191: bicubic overshoot then meets neither black nor white, where it is cut off once
    # or twice, by whichever of its two passes Pillow takes first.
    image = noise(*size).point(lambda level: 64 + level // 2)
    fast, plain = prepare(image, preprocess), prepare_plainly(image, preprocess)
    assert fast.shape == (3, preprocess.crop, preprocess.crop)
    assert fast.dtype == np.uint8
    assert fast.transpose(1, 2, 0).flags.c_contiguous  # channels-last, as models take it
    assert np.abs(fast.astype(int) - plain).max() <= 1  # one level, from rounding twice


def test_squashing_ignores_the_aspect() -> None:
    image = noise(40, 20)
    square = prepare(image, Preprocess(None, 8, "bilinear"))
    expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(square, expected)


def test_the_crop_is_the_centre() -> None:
    array = np.zeros((32, 64, 3), np.uint8)
    array[:, 16:48] = 255
    assert prepare(Image.fromarray(array), Preprocess(32, 32, "bilinear")).min() == 255
