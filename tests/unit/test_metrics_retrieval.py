"""Retrieval against a plain loop, toy cases with ties, and odd numbers of captions."""

import json

import numpy as np
import pytest
import torch

from align_cache.errors import NonFiniteError, ShapeError
from align_cache.metrics.interval import wilson_interval
from align_cache.metrics.retrieval import retrieval


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plain_ranks(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> tuple[list[int], list[int]]:
    """Ranks as the definition reads: the wrong ones at least as good as the best right one, plus one."""
    image_ranks, text_ranks = [], []
    similarity = images.astype(np.float64) @ texts.astype(np.float64).T
    for i in range(len(images)):
        right = owner == i
        if right.any():
            image_ranks.append(1 + int((similarity[i, ~right] >= similarity[i, right].max()).sum()))
    for j, i in enumerate(owner):
        others = np.delete(similarity[:, j], i)
        text_ranks.append(1 + int((others >= similarity[i, j]).sum()))
    return image_ranks, text_ranks


@pytest.mark.parametrize(("n_images", "n_texts"), [(1, 1), (1, 4), (2, 1), (7, 40), (61, 257), (257, 61)])
@pytest.mark.parametrize("block_rows", [1, 16, 1024])
def test_ranks_equal_a_plain_loop_with_any_number_of_captions_per_image(n_images, n_texts, block_rows):
    random = np.random.default_rng(n_images)
    owner = random.integers(0, n_images, n_texts)  # some images have several captions, some none
    images = unit(random.normal(size=(n_images, 6))).astype(np.float32)
    texts = unit(images[owner] + random.normal(size=(n_texts, 6))).astype(np.float32)
    found = retrieval(images, texts, owner, block_rows=block_rows)
    image_ranks, text_ranks = plain_ranks(images, texts, owner)
    assert found.image_to_text.ranks.tolist() == image_ranks
    assert found.text_to_image.ranks.tolist() == text_ranks
    assert found.query_images.tolist() == sorted(set(owner.tolist()))


def test_the_summary_of_hand_worked_ranks():
    """Three images on the axes; captions that lean one way or another."""
    images = np.eye(3)
    texts = unit(np.array([[3.0, 1, 0], [2, 3, 0], [0, 2, 1], [0, 4, 1]]))
    found = retrieval(images, texts, [0, 0, 1, 2], ks=(1, 2, 9))
    assert found.image_to_text.ranks.tolist() == [1, 2, 2]
    assert found.text_to_image.ranks.tolist() == [1, 2, 1, 2]
    assert found.image_to_text.recall == {1: pytest.approx(1 / 3), 2: 1.0, 9: 1.0}
    record = found.text_to_image.to_record()
    assert record.pop("intervals").keys() == {"r1", "r2", "r9"}
    assert record == {
        "r1": 0.5, "r2": 1.0, "r9": 1.0, "median_rank": 1.5, "mrr": 0.75, "n_queries": 4, "n_candidates": 3,
    }  # fmt: skip
    assert found.image_to_text.mrr == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_all_embeddings_equal_is_the_worst_rank_and_not_the_best():
    found = retrieval(np.ones((4, 3)), np.ones((8, 3)), np.repeat(np.arange(4), 2))
    assert found.image_to_text.ranks.tolist() == [7] * 4  # six wrong captions stand before
    assert found.text_to_image.ranks.tolist() == [4] * 8
    assert found.to_record()["image_to_text"]["r5"] == 0.0


@pytest.mark.parametrize("block_rows", [1, 3, 64])
def test_equal_rows_tie_exactly_wherever_the_blocks_cut_them(block_rows):
    """The sums of a matrix product may differ in the last bit from place to place; a tie stays a tie."""
    random = np.random.default_rng(5)
    images = np.repeat(unit(random.normal(size=(1, 301))), 50, axis=0).astype(np.float32)
    texts = np.repeat(unit(random.normal(size=(1, 301))), 50, axis=0).astype(np.float32)
    found = retrieval(images, texts, np.arange(50), block_rows=block_rows)
    assert set(found.text_to_image.ranks) == {50}
    assert set(found.image_to_text.ranks) == {50}


def test_differences_of_one_float32_step_are_no_ties():
    base = np.float32(0.5)
    images = np.array([[base], [np.nextafter(base, np.float32(1))]], dtype=np.float32)
    found = retrieval(images, np.ones((2, 1), dtype=np.float32), [0, 1])
    assert found.text_to_image.ranks.tolist() == [2, 1]


def test_an_image_without_a_caption_is_a_candidate_but_no_query():
    images, texts = np.eye(3), np.eye(3)[[0, 2]]
    found = retrieval(images, texts, [0, 2])
    assert (found.image_to_text.n_queries, found.image_to_text.n_candidates) == (2, 2)
    assert (found.text_to_image.n_queries, found.text_to_image.n_candidates) == (2, 3)
    assert found.query_images.tolist() == [0, 2]


def test_a_caption_shared_by_two_images_cannot_be_first_for_both():
    found = retrieval(np.eye(2), np.array([[1.0, 1], [1, 1]]) / np.sqrt(2), [0, 1])
    assert found.text_to_image.ranks.tolist() == [2, 2]


def test_random_embeddings_find_the_share_that_chance_gives():
    random = np.random.default_rng(0)
    images, texts = unit(random.normal(size=(200, 16))), unit(random.normal(size=(2000, 16)))
    recall = retrieval(images, texts, np.repeat(np.arange(200), 10), ks=(10,)).text_to_image.recall[10]
    assert abs(recall - 10 / 200) < 4 * np.sqrt(0.05 * 0.95 / 2000)


def test_shuffling_captions_and_images_with_their_links_changes_no_rank():
    random = np.random.default_rng(1)
    owner = random.integers(0, 30, 90)
    images = unit(random.normal(size=(30, 8)))
    texts = unit(images[owner] + random.normal(size=(90, 8)))
    before = retrieval(images, texts, owner)
    order, captions = random.permutation(30), random.permutation(90)
    after = retrieval(images[order], texts[captions], np.argsort(order)[owner][captions])
    assert after.text_to_image.ranks.tolist() == before.text_to_image.ranks[captions].tolist()
    assert after.to_record() == before.to_record()


def test_tensors_and_half_precision_give_the_ranks_of_the_same_numbers():
    random = np.random.default_rng(2)
    owner = random.integers(0, 20, 60)
    images = unit(random.normal(size=(20, 8))).astype(np.float16)
    texts = unit(random.normal(size=(60, 8))).astype(np.float16)
    expected = retrieval(images.astype(np.float64), texts.astype(np.float64), owner)
    for found in (
        retrieval(images, texts, owner),
        retrieval(torch.tensor(images), torch.tensor(texts).requires_grad_(), torch.tensor(owner)),
        retrieval(torch.tensor(images), texts, owner.tolist()),
    ):
        assert found.to_record() == expected.to_record()


def test_the_record_survives_json():
    record = retrieval(np.eye(3), np.eye(3), range(3)).to_record()
    assert json.loads(json.dumps(record)) == record
    assert list(record["text_to_image"]) == [
        "r1",
        "r5",
        "r10",
        "intervals",
        "median_rank",
        "mrr",
        "n_queries",
        "n_candidates",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_of_text": [0, 1]}, "expected 3 integers"),
        ({"image_of_text": [0.0, 1.0, 2.0]}, "expected 3 integers"),
        ({"image_of_text": [0, 1, 3]}, "there are 3 images"),
        ({"image_of_text": [0, 1, -1]}, "there are 3 images"),
        ({"text_embeddings": np.eye(3)[:, :2]}, "3 dimensions and text_embeddings 2"),
        ({"text_embeddings": np.eye(3)[:0], "image_of_text": []}, "0 rows"),
        ({"image_embeddings": np.eye(3)[:0]}, "0 rows"),
        ({"ks": ()}, "ks is"),
        ({"ks": (0, 5)}, "ks is"),
        ({"block_rows": 0}, "block_rows is 0"),
    ],
)
def test_input_that_cannot_be_meant_is_refused_in_one_line(change, message):
    whole = {"image_embeddings": np.eye(3), "text_embeddings": np.eye(3), "image_of_text": [0, 1, 2]} | change
    with pytest.raises(ShapeError, match=message) as caught:
        retrieval(**whole)
    assert "\n" not in str(caught.value)


def test_nan_is_refused_by_name():
    with pytest.raises(NonFiniteError, match="text_embeddings"):
        retrieval(np.eye(3), np.full((3, 3), np.nan), range(3))


def test_recalls_have_intervals_over_images_whichever_way():
    """With one caption an image both are Wilson's; copied captions add queries and no certainty."""
    random = np.random.default_rng(2)
    images = unit(random.normal(size=(80, 5)))
    texts = unit(images + random.normal(size=(80, 5)))
    once = retrieval(images, texts, np.arange(80), ks=(1,))
    for direction in (once.image_to_text, once.text_to_image):
        right = int((direction.ranks == 1).sum())
        assert 0 < right < 80
        assert direction.intervals[1] == pytest.approx(wilson_interval(right, 80))
    thrice = retrieval(images, np.repeat(texts, 3, axis=0), np.repeat(np.arange(80), 3), ks=(1,))
    assert thrice.text_to_image.n_queries == 240
    assert thrice.text_to_image.intervals[1] == pytest.approx(once.text_to_image.intervals[1])
