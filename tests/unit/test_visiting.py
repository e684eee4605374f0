"""The order of an epoch in blocks, and what is looked at of sets that exceed memory."""

from pathlib import Path

import numpy as np
import pytest

from align_cache.errors import ConfigError, UsageError
from align_cache.judging.evaluation import evaluate
from align_cache.pairing import batches
from align_cache.pairing.batches import Batches
from align_cache.pairing.pairs import Pairs, join
from align_cache.pairing.visiting import scattered, visit
from align_cache.settings import EvalConfig
from align_cache.training import assemble
from align_cache.training.fitting import fit
from align_cache.training.validation import in_parts, mean_of_parts
from tests.unit.stored import paired_sets
from tests.unit.test_fit import epochs, toy


def in_blocks(n: int, seed: int = 0, **how: int) -> np.ndarray:
    return visit(np.arange(n), np.random.default_rng(seed), order="blocks", **how)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100, 101])
@pytest.mark.parametrize(("block", "mixed"), [(1, 1), (8, 1), (8, 3), (1000, 16)])
def test_each_image_is_visited_once(n: int, block: int, mixed: int) -> None:
    assert sorted(in_blocks(n, block_images=block, mixed_blocks=mixed)) == list(range(n))


def test_a_stretch_of_the_order_lies_in_few_runs_of_neighbours_and_is_shuffled() -> None:
    order = in_blocks(1000, block_images=20, mixed_blocks=4)
    for start in range(0, 960, 80):
        stretches = np.unique(order[start : start + 80] // 20)
        assert len(stretches) <= 16, "of 8 blocks at most, each across two of these; of any order about 40"
    assert np.count_nonzero(np.diff(order) == 1) < 100, "rows are not read one after the other"
    assert np.abs(np.diff(order[:80])).mean() > 20, "blocks are mixed"


def test_blocks_are_cut_elsewhere_in_another_draw_and_alike_in_the_same() -> None:
    assert (in_blocks(500, 1, block_images=50) == in_blocks(500, 1, block_images=50)).all()
    borders = {tuple(in_blocks(500, seed, block_images=50, mixed_blocks=1)[:20]) for seed in range(5)}
    assert len(borders) == 5


def test_any_order_is_what_it_was_before_there_were_blocks() -> None:
    drawn = visit(np.arange(30), np.random.default_rng(3), order="shuffled")
    assert (drawn == np.random.default_rng(3).permutation(np.arange(30))).all()


def joined_pairs(cache_dir: Path, **changes: object) -> Pairs:
    return join(*paired_sets(cache_dir, **changes)).pairs  # type: ignore[arg-type]


@pytest.mark.parametrize("captions_per_image", [1, "all"])
@pytest.mark.parametrize("pool", [None, np.arange(5, 40)])
def test_batches_in_blocks_keep_every_promise_of_batches(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, captions_per_image: int | str, pool: np.ndarray | None
) -> None:
    monkeypatch.setattr(
        "align_cache.pairing.visiting.visit.__kwdefaults__", {"block_images": 6, "mixed_blocks": 2}
    )
    pairs = joined_pairs(cache_dir, captions=[1 + i % 4 for i in range(60)])

    def rows(order: str, epoch: int) -> list[np.ndarray]:
        made = Batches(pairs, batch_size=7, accumulation=1, captions_per_image=captions_per_image,  # type: ignore[arg-type]
                       seed=0, order=order)  # type: ignore[arg-type]  # fmt: skip
        return [np.stack([step.image_rows, step.caption_rows]) for step in made.epoch(epoch, pool=pool)]

    own = dict(zip(pairs.caption_rows.tolist(), pairs.caption_image.tolist(), strict=True))
    blocks = rows("blocks", 1)
    assert len(blocks) == len(rows("shuffled", 1))
    for images, captions in blocks:
        assert len(set(images)) == 7
        assert [own[row] for row in captions] == images.tolist()
    assert np.array_equal(blocks, rows("blocks", 1))
    assert not np.array_equal(blocks, rows("blocks", 2))
    assert not np.array_equal(blocks, rows("shuffled", 1))


@pytest.mark.parametrize("at_once", [1, 7, 50, 1000])
def test_captions_are_shuffled_part_by_part_as_all_at_once(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    pairs = joined_pairs(cache_dir, captions=[1 + i % 4 for i in range(60)])
    monkeypatch.setattr(batches, "_BLOCK_CAPTIONS", at_once)
    keys = np.random.default_rng(5).random(pairs.n_captions)
    expected = pairs.caption_rows[np.lexsort((keys, pairs.caption_image))]
    assert (batches._shuffled_captions(pairs, np.random.default_rng(5)) == expected).all()


def test_captions_in_another_order_than_their_images_are_said_to_be_scattered(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not scattered(np.random.default_rng(0).permutation(4096)), "all of it is one block"
    assert scattered(np.random.default_rng(0).permutation(5000))
    assert not scattered(np.repeat(np.arange(5000) * 5, 1))
    monkeypatch.setattr("align_cache.pairing.visiting.BLOCK_IMAGES", 10)
    pairs = joined_pairs(cache_dir)  # its captions are shuffled, its reference reversed
    notes = Batches(pairs, batch_size=8, accumulation=1, captions_per_image=1, seed=0, order="blocks").notes
    assert ["captions" in notes[0], "reference" in notes[1], len(notes)] == [True, True, 2]
    assert Batches(pairs, batch_size=8, accumulation=1, captions_per_image=1, seed=0).notes == ()


def test_a_run_in_blocks_trains_from_the_map_and_from_memory_alike(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    in_memory, mapped = (
        fit(toy(data__order="blocks", data__rows=rows), cache_dir=cache_dir) for rows in ("memory", "mmap")
    )
    assert [e["val"] for e in epochs(in_memory)] == [e["val"] for e in epochs(mapped)]


@pytest.mark.parametrize(
    ("n", "sizes"), [(16, [16]), (17, [17]), (24, [24]), (25, [24]), (33, [24, 9]), (56, [24, 24, 8])]
)
def test_validation_pairs_are_cut_into_whole_batches(cache_dir: Path, n: int, sizes: list[int]) -> None:
    pairs = joined_pairs(cache_dir).subset(np.arange(n))
    parts = in_parts(pairs, at_least=5, batch_size=8, part_images=20)
    assert [part.n_images for part in parts] == sizes
    assert (
        np.concatenate([part.caption_rows for part in parts]) == pairs.caption_rows[: sum(sizes) * 3]
    ).all()
    assert in_parts(pairs, at_least=60, batch_size=8, part_images=20) == [pairs]


def test_the_validation_loss_in_parts_is_that_of_all_at_once(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paired_sets(cache_dir, n=200)  # 40 validate, in batches of 8
    config = toy(optim__epochs=2, evaluation__num_images=12, precision="fp32")
    whole = epochs(fit(config, cache_dir=cache_dir))
    monkeypatch.setattr("align_cache.training.validation.in_parts.__kwdefaults__", {"part_images": 9})
    parts = epochs(fit(config, cache_dir=cache_dir))
    for one, other in zip(whole, parts, strict=True):
        assert other["val"] == pytest.approx(one["val"], rel=1e-5)
        assert other["retrieval"] == one["retrieval"]


def test_parts_are_weighed_by_their_batches_and_the_share_by_the_loss() -> None:
    first = {"loss": 2.0, "contrastive": 1.0, "variance": 2.0, "variance_share": 0.5}
    second = {"loss": 8.0, "contrastive": 6.0, "variance": 4.0, "variance_share": 0.25}
    mean = mean_of_parts([first, second], [3, 1])
    assert mean == {"loss": 3.5, "contrastive": 2.25, "variance": 2.5, "variance_share": 5 / 14}
    assert mean["variance_share"] == pytest.approx(0.5 * mean["variance"] / mean["loss"])


def test_features_larger_than_memory_are_trained_on_with_a_word_and_not_solved_for(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paired_sets(cache_dir)
    monkeypatch.setattr(assemble, "memory_bytes", lambda: 1000)
    run = fit(toy(data__rows="mmap", optim__epochs=1, optim__warmup_epochs=0), cache_dir=cache_dir)
    assert any("data.order = blocks" in note for note in run.info()["notes"])
    run = fit(
        toy(data__rows="mmap", data__order="blocks", optim__epochs=1, optim__warmup_epochs=0),
        cache_dir=cache_dir,
    )
    assert not any("GB" in note for note in run.info()["notes"])
    with pytest.raises(ConfigError, match="ridge solves with all training rows at once"):
        fit(toy(adapter__type="ridge"), cache_dir=cache_dir)


def test_an_evaluation_is_bounded_by_its_limit_and_refuses_what_is_quadratic_without(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paired_sets(cache_dir)
    run = fit(toy(optim__epochs=1, optim__warmup_epochs=0), cache_dir=cache_dir)
    assert evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)["n_images"] == 12
    assert evaluate(run, EvalConfig(k=3, limit=9), cache_dir=cache_dir)["n_images"] == 9
    monkeypatch.setattr("align_cache.judging.evaluation._MOST_IMAGES", 11)
    with pytest.raises(UsageError, match="test split has 12 images, and all are compared with all"):
        evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)
