import numpy as np
import pytest
import torch

from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, ImageEncoder, TextEncoder
from align_cache.errors import UsageError

CPU = torch.device("cpu")
CAPTIONS = [
    "a red square",
    "a blue disc left of a red square",
    "",
    "a red disc left of a blue square",
    "a disc",
]


def image_encoder(name: str, weights: str = "random") -> ImageEncoder:
    encoder = load(resolve(EncoderRequest(name, weights)), device=CPU, dtype=torch.float32)
    assert isinstance(encoder, ImageEncoder)
    return encoder


def text_encoder(
    weights: str = "random", dtype: torch.dtype = torch.float32, max_length: int = 64
) -> TextEncoder:
    request = EncoderRequest("small-text", weights, max_length=max_length)
    encoder = load(resolve(request, captions_digest="d"), device=CPU, dtype=dtype, captions=lambda: CAPTIONS)
    assert isinstance(encoder, TextEncoder)
    return encoder


def drawing(colour: tuple[int, int, int], left: int) -> torch.Tensor:
    square = np.full((3, 64, 64), 240, np.uint8)
    square[:, 24:40, left : left + 16] = np.array(colour)[:, None, None]
    return torch.from_numpy(square)


@pytest.mark.parametrize(("name", "dim"), [("small-cnn", 384), ("small-vit", 256)])
def test_colour_and_place_move_the_features(name: str, dim: int) -> None:
    encoder = image_encoder(name)
    red_left, red_right, blue_left = (
        drawing((200, 40, 40), 4),
        drawing((200, 40, 40), 44),
        drawing((40, 40, 200), 4),
    )
    features = encoder.encode(torch.stack([red_left, red_right, blue_left, red_left]))
    assert encoder.dim == features.shape[1] == dim
    unit = torch.nn.functional.normalize(features, dim=1)
    similarity = unit @ unit.T
    assert similarity[0, 3] > 0.9999
    assert similarity[0, 1] < 0.995
    assert similarity[0, 2] < 0.995


@pytest.mark.parametrize("name", ["small-cnn", "small-vit"])
def test_a_seed_decides_the_small_image_encoders(name: str) -> None:
    batch = torch.stack([drawing((200, 40, 40), 4)])
    first = image_encoder(name, "random:2").encode(batch)
    torch.manual_seed(5)
    assert torch.equal(first, image_encoder(name, "random:2").encode(batch))
    assert not torch.equal(first, image_encoder(name, "random:3").encode(batch))


@pytest.mark.parametrize("name", ["small-cnn", "small-vit", "small-text"])
def test_they_are_always_untrained(name: str) -> None:
    assert resolve(EncoderRequest(name, "random"), captions_digest="d").untrained
    with pytest.raises(UsageError, match="always untrained") as caught:
        resolve(EncoderRequest(name), captions_digest="d")
    assert f"--weights {name}=random" in str(caught.value.hint)
    with pytest.raises(UsageError, match="pooling of its own"):
        resolve(EncoderRequest(name, "random", pooling="cls"), captions_digest="d")


def test_word_order_moves_the_features_of_a_text() -> None:
    features, _ = text_encoder().encode(CAPTIONS, batch_size=8)
    unit = torch.nn.functional.normalize(features, dim=1)
    assert (unit[1] @ unit[3]).item() < 0.999  # the same words, tied to other colours


def test_batches_change_neither_the_order_nor_the_values() -> None:
    encoder = text_encoder()
    texts = [" ".join(["red"] * (index * 7 % 13)) + " disc" for index in range(23)]
    one_by_one = torch.cat([encoder.encode([text], batch_size=1)[0] for text in texts])
    for batch_size in (1, 2, 5, 23, 100):
        done: list[int] = []
        features, cut = encoder.encode(texts, batch_size=batch_size, on_batch=done.append)
        assert torch.allclose(features, one_by_one, atol=1e-5)
        assert cut == 0
        assert done[-1] == 23
        assert len(done) == -(-23 // batch_size)


def test_no_texts_give_no_rows() -> None:
    features, cut = text_encoder().encode([], batch_size=4)
    assert features.shape == (0, 256)
    assert cut == 0


def test_the_same_texts_give_the_same_bits() -> None:
    first = text_encoder(dtype=torch.bfloat16).encode(CAPTIONS, batch_size=2)[0]
    second = text_encoder(dtype=torch.bfloat16).encode(CAPTIONS, batch_size=2)[0]
    assert first.dtype == torch.float32
    assert torch.equal(first, second)


def test_texts_over_the_length_are_cut_and_counted() -> None:
    encoder = text_encoder(max_length=5)
    features, cut = encoder.encode(
        ["a red square", "a red square and more", "a red square or less"], batch_size=2
    )
    assert cut == 2
    assert torch.allclose(features[1], features[2], atol=1e-6)


@pytest.mark.parametrize("max_length", [1, 2])
def test_a_length_without_room_for_a_word_is_refused(max_length: int) -> None:
    with pytest.raises(UsageError, match="3 tokens or more"):
        resolve(EncoderRequest("small-text", "random", max_length=max_length), captions_digest="d")
