"""Cosines of matched and unmatched pairs: the plain dense form, toy cases by hand, invariances."""

import numpy as np
import pytest
import torch

from align_cache.errors import NonFiniteError, ShapeError
from align_cache.metrics.arrays import BLOCK_ROWS
from align_cache.metrics.similarity import pair_similarity


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pairs(n: int, dim: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that are alike, of two modalities that are apart."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=(n, dim))
    image, text = (shared + random.normal(size=(n, dim)) + side for side in (-0.5, 0.5))
    return unit(image), unit(text)


@pytest.mark.parametrize(("n", "dim"), [(2, 1), (3, 7), (53, 16), (BLOCK_ROWS + 1, 3)])
def test_both_means_are_those_of_the_dense_matrix(n: int, dim: int) -> None:
    image, text = pairs(n, dim)
    cosines = image @ text.T
    found = pair_similarity(image, text)
    assert found.matched == pytest.approx(np.diag(cosines).mean(), abs=1e-6)
    assert found.unmatched == pytest.approx(cosines[~np.eye(n, dtype=bool)].mean(), abs=1e-6)


def test_hand_worked_cases() -> None:
    axes = np.eye(4)
    assert pair_similarity(axes, axes).to_record() == {"matched": 1.0, "unmatched": 0.0}
    swapped = pair_similarity(axes[:2], axes[:2][::-1].copy())
    assert (swapped.matched, swapped.unmatched) == (0.0, 1.0)
    one_point = np.repeat(axes[:1], 5, axis=0)
    assert pair_similarity(one_point, -one_point).to_record() == {"matched": -1.0, "unmatched": -1.0}


def test_a_common_turn_an_exchange_and_a_common_order_change_nothing() -> None:
    image, text = pairs(31, 6)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    order = np.random.default_rng(2).permutation(31)
    before = pair_similarity(image, text)
    for a, b in ((image @ turn, text @ turn), (text, image), (image[order], text[order])):
        found = pair_similarity(a, b)
        assert found.matched == pytest.approx(before.matched, abs=1e-6)
        assert found.unmatched == pytest.approx(before.unmatched, abs=1e-6)


def test_another_order_of_the_captions_alone_keeps_the_mean_of_all_cosines() -> None:
    image, text = pairs(20, 5)
    before, after = pair_similarity(image, text), pair_similarity(image, np.roll(text, 1, axis=0))
    assert before.matched - before.unmatched > 0.3 > abs(after.matched - after.unmatched)
    assert before.matched + 19 * before.unmatched == pytest.approx(after.matched + 19 * after.unmatched)


def test_tensors_and_half_precision_are_read_as_they_are() -> None:
    image, text = pairs(40, 8)
    found = pair_similarity(torch.from_numpy(image.astype(np.float32)), text.astype(np.float16))
    assert found.matched == pytest.approx(pair_similarity(image, text).matched, abs=1e-3)


def test_what_cannot_be_compared_is_refused() -> None:
    image, text = pairs(6, 4)
    with pytest.raises(ShapeError, match="image_embeddings has 6 rows and text_embeddings 5"):
        pair_similarity(image, text[:5])
    with pytest.raises(ShapeError, match="4 dimensions and text_embeddings 3"):
        pair_similarity(image, text[:, :3])
    with pytest.raises(ShapeError, match="expected at least 2"):
        pair_similarity(image[:1], text[:1])
    with pytest.raises(NonFiniteError):
        pair_similarity(image, np.full_like(text, np.nan))
