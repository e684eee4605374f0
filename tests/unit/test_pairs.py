"""Pairing by id, splitting by image, batching without false negatives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align_cache.config import to_toml
from align_cache.errors import PairingError
from align_cache.pairing.batches import Batches
from align_cache.pairing.embedding import FeatureRows
from align_cache.pairing.pairs import Splits, join, split_pairs
from align_cache.settings import fit_config
from align_cache.training.fitting import fit
from tests.unit.stored import paired_sets
from tests.unit.test_fit import toy


def test_every_caption_is_joined_to_the_image_that_its_group_id_names(cache_dir: Path) -> None:
    image, text, reference = paired_sets(cache_dir, captions=[1 + i % 4 for i in range(60)])
    joined = join(image, text, reference)
    pairs = joined.pairs
    assert pairs.n_images == 60
    assert pairs.n_captions == text.rows
    assert text.group_ids is not None
    for i in range(pairs.n_images):
        rows = pairs.caption_rows[pairs.caption_starts[i] : pairs.caption_starts[i + 1]]
        assert set(text.group_ids[rows]) == {pairs.sample_ids[i]}
        assert len(rows) == 1 + i % 4
    assert pairs.reference_rows is not None
    assert (reference.sample_ids[pairs.reference_rows] == pairs.sample_ids).all()
    assert (image.sample_ids[pairs.image_rows] == pairs.sample_ids).all()
    assert joined.notes == ()


def test_a_subset_keeps_each_images_own_captions(cache_dir: Path) -> None:
    pairs = join(*paired_sets(cache_dir, captions=[1 + i % 4 for i in range(60)])).pairs
    chosen = np.array([7, 3, 58, 0])
    subset = pairs.subset(chosen)
    for position, i in enumerate(chosen):
        expected = pairs.caption_rows[pairs.caption_starts[i] : pairs.caption_starts[i + 1]]
        got = subset.caption_rows[subset.caption_starts[position] : subset.caption_starts[position + 1]]
        assert (got == expected).all()
    assert (subset.caption_image == np.repeat(np.arange(4), subset.caption_counts)).all()


def test_images_without_captions_or_reference_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    image, _, _ = paired_sets(tmp_path / "a", n=60)
    _, text, reference = paired_sets(tmp_path / "b", n=40)
    joined = join(image, text, reference)
    assert joined.pairs.n_images == 40
    assert any("20 images of toy/image" in note for note in joined.notes)


def test_sets_of_different_data_are_refused_with_the_counts(tmp_path: Path, cache_dir: Path) -> None:
    image, text, reference = paired_sets(cache_dir, n=20)
    foreign = np.array([f"other{i}" for i in range(20)])
    from align_cache.extraction.external import import_features
    from align_cache.store import FeatureSet

    np.savez(tmp_path / "x.npz", sample_id=foreign, features=image.array())
    folder = import_features(
        tmp_path / "x.npz", dataset="other", encoder="image", modality="image", cache_dir=cache_dir
    ).folder
    with pytest.raises(PairingError, match=r"no image of other/image@\w+ \(20 images\) is in toy/text"):
        join(FeatureSet.open(folder), text, reference)


def test_a_text_set_in_the_place_of_images_is_refused(cache_dir: Path) -> None:
    image, text, reference = paired_sets(cache_dir, n=20)
    with pytest.raises(PairingError, match="holds text features, expected image"):
        join(text, image, reference)


def test_no_image_stands_in_two_splits_and_test_images_in_none(cache_dir: Path) -> None:
    joined = join(*paired_sets(cache_dir))
    for how in ("dataset", "fraction"):
        splits = split_pairs(joined, how=how, val_fraction=0.25, num_samples=None, seed=0)
        train, val = set(splits.train.sample_ids), set(splits.val.sample_ids)
        test = set(joined.pairs.sample_ids[joined.images_of("test")])
        assert not train & val
        assert not (train | val) & test
    assert len(val) == 9  # a quarter of 36 training images


def test_a_smaller_subset_lies_inside_a_larger_one_of_the_same_seed(cache_dir: Path) -> None:
    joined = join(*paired_sets(cache_dir))
    drawn = [
        set(split_pairs(joined, how="dataset", val_fraction=0.25, num_samples=n, seed=3).train.sample_ids)
        for n in (5, 11, 30)
    ]
    assert [len(ids) for ids in drawn] == [5, 11, 30]
    assert drawn[0] < drawn[1] < drawn[2]


@pytest.mark.parametrize("how", ["dataset", "fraction"])
def test_a_smaller_fraction_lies_inside_a_larger_one_and_all_is_all(cache_dir: Path, how: Any) -> None:
    joined = join(*paired_sets(cache_dir, n=200))

    def trained(fraction: float | None, seed: int = 3) -> set[str]:
        splits = split_pairs(
            joined, how=how, val_fraction=0.25, num_samples=None, train_fraction=fraction, seed=seed
        )
        return set(splits.train.sample_ids)

    everything = trained(None)
    drawn = [trained(fraction) for fraction in (0.1, 0.25, 0.5, 1.0)]
    assert [len(ids) for ids in drawn] == [round(f * len(everything)) for f in (0.1, 0.25, 0.5, 1.0)]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3] == everything
    assert trained(0.1, seed=4) != drawn[0]


def test_a_fraction_is_the_same_draw_as_its_number_and_both_bound(cache_dir: Path) -> None:
    joined = join(*paired_sets(cache_dir))  # 36 training images

    def split(num_samples: int | None, fraction: float | None) -> Splits:
        return split_pairs(
            joined, how="dataset", val_fraction=0.25, num_samples=num_samples, train_fraction=fraction, seed=0
        )

    by_fraction, by_number = split(None, 0.25), split(9, None)
    assert (by_fraction.train.sample_ids == by_number.train.sample_ids).all()
    assert by_fraction.notes == ("train_fraction = 0.25: 9 of 36 training images",)
    both = split(5, 0.25)
    assert set(both.train.sample_ids) < set(by_fraction.train.sample_ids)
    assert both.train.n_images == 5
    assert both.notes[1:] == ("num_samples = 5 bounds them further",)
    assert split(12_800, 0.25).train.n_images == 9
    with pytest.raises(PairingError, match="1 images to train and 12 to validate"):
        split(None, 0.02)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), (12_800, None)),
        (("data.train_fraction=0.5",), (None, 0.5)),
        (("data.train_fraction=0.5", "data.num_samples=100"), (100, 0.5)),
        (("data.train_fraction=none",), (12_800, None)),
    ],
)
def test_a_fraction_alone_is_not_cut_by_the_default_number_and_a_resumed_run_agrees(
    tmp_path: Path, given: tuple[str, ...], expected: tuple[int | None, float | None]
) -> None:
    config = fit_config(assignments=given)
    assert (config.data.num_samples, config.data.train_fraction) == expected
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert fit_config(file=tmp_path / "config.toml") == config


@pytest.mark.parametrize("images", [2, 7, 8, 9, 23])
def test_few_images_make_a_batch_an_epoch_and_its_loss_is_not_halved(cache_dir: Path, images: int) -> None:
    """Batches of 8 accumulated by two: what is missing of a step is not taken for a loss of zero."""
    paired_sets(cache_dir)
    config = toy(
        data__num_samples=images, optim__epochs=1, optim__warmup_epochs=0, adapter__dropout=0.0, seed=5
    )
    run = fit(config, cache_dir=cache_dir)
    size, info = min(8, images), run.info()
    assert (info["batch_size"], info["steps_per_epoch"]) == (size, max(1, -(-(images // 8) // 2)))
    assert any("all of them in one batch" in note for note in info["notes"]) == (images < 8)
    first = next(record for record in run.records() if record["kind"] == "step")
    assert first["contrastive"] > 0.7 * np.log(size), "untrained adapters tell nothing apart"


def test_without_splits_a_fixed_share_validates_whatever_the_seed(cache_dir: Path) -> None:
    joined = join(*paired_sets(cache_dir, splits=False))
    one, two = (
        split_pairs(joined, how="dataset", val_fraction=0.25, num_samples=20, seed=seed) for seed in (0, 1)
    )
    assert (one.val.sample_ids == two.val.sample_ids).all()
    assert set(one.train.sample_ids) != set(two.train.sample_ids)
    assert any("names no validation images" in note for note in one.notes)


@pytest.mark.parametrize("captions_per_image", [1, 2, "all"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_batch_holds_no_image_twice_and_every_caption_belongs_to_its_image(
    cache_dir: Path, captions_per_image: int | str, accumulation: int
) -> None:
    image, text, reference = paired_sets(cache_dir, captions=[1 + i % 4 for i in range(60)])
    pairs = join(image, text, reference).pairs
    batches = Batches(
        pairs,
        batch_size=7,
        accumulation=accumulation,
        captions_per_image=captions_per_image,  # type: ignore[arg-type]
        seed=0,
    )
    steps = list(batches.epoch(1))
    assert len(steps) == batches.steps_per_epoch
    assert sum(len(step.image_rows) // 7 for step in steps) == batches.batches_per_epoch
    assert text.group_ids is not None
    seen = []
    for step in steps:
        assert (text.group_ids[step.caption_rows] == image.sample_ids[step.image_rows]).all()
        assert step.reference_rows is not None
        assert (reference.sample_ids[step.reference_rows] == image.sample_ids[step.image_rows]).all()
        for start in range(0, len(step.image_rows), 7):
            assert len(set(step.image_rows[start : start + 7])) == 7
        seen += step.caption_rows.tolist()
    assert len(seen) == len(set(seen)), "a caption is visited once an epoch"


def test_an_epoch_is_a_function_of_seed_and_epoch(cache_dir: Path) -> None:
    pairs = join(*paired_sets(cache_dir)).pairs

    def rows(seed: int, epoch: int) -> list[int]:
        made = Batches(pairs, batch_size=8, accumulation=2, captions_per_image=1, seed=seed).epoch(epoch)
        return [row for step in made for row in step.caption_rows.tolist()]

    assert rows(0, 1) == rows(0, 1)
    assert rows(0, 1) != rows(0, 2)
    assert rows(0, 1) != rows(1, 1)


def test_validation_images_do_not_train_where_none_are_named_for_training(cache_dir: Path) -> None:
    joined = join(*paired_sets(cache_dir))
    joined = replace(joined, splits=np.where(joined.splits == b"train", b"", joined.splits))
    splits = split_pairs(joined, how="dataset", val_fraction=0.25, num_samples=None, seed=0)
    assert (splits.train.n_images, splits.val.n_images) == (36, 12)
    joined = replace(joined, splits=np.where(joined.splits == b"", b"test", joined.splits))
    with pytest.raises(PairingError, match="0 images to train and 12 to validate"):
        split_pairs(joined, how="dataset", val_fraction=0.25, num_samples=None, seed=0)


def test_a_batch_larger_than_the_data_becomes_all_of_it(cache_dir: Path) -> None:
    pairs = join(*paired_sets(cache_dir, n=10)).pairs
    batches = Batches(pairs, batch_size=256, accumulation=2, captions_per_image=1, seed=0)
    (step,) = batches.epoch(1)
    assert sorted(step.image_rows) == sorted(pairs.image_rows)


@pytest.mark.parametrize("where", ["memory", "mmap"])
def test_rows_from_memory_and_from_the_map_are_the_stored_rows(cache_dir: Path, where: str) -> None:
    image, _, _ = paired_sets(cache_dir)
    used = np.array([50, 3, 3, 17, 59])
    rows = FeatureRows(image, used, device=torch.device("cpu"), where=where)  # type: ignore[arg-type]
    expected = image.array()[[17, 50, 3]].astype(np.float32)
    assert np.array_equal(rows.take(np.array([17, 50, 3])).numpy(), expected)
