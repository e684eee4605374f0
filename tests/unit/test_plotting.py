"""Pictures asked for one by one: which pairs, laid out how, what is measured of them, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_cache.cli import main
from align_cache.extraction.external import import_features
from align_cache.judging.drawn_pairs import judged_pairs
from align_cache.reporting.mixing import _BLOCK_ROWS, mixing
from align_cache.reporting.tsne import COLOURS, Layout, check_perplexities, lay_out, pairs_figure
from align_cache.results import Run
from align_cache.training.fitting import fit
from tests.unit.stored import paired_sets
from tests.unit.test_fit import toy

# --- who is next to whom ------------------------------------------------------------------------------------


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def dense_mixing(image: np.ndarray, text: np.ndarray) -> tuple[float, float]:
    """Both shares from the whole 2n x 2n matrix."""
    n, points = len(image), unit(np.concatenate([image, text]))
    cosines = points @ points.T
    np.fill_diagonal(cosines, -np.inf)
    nearest, own = cosines.argmax(axis=1), (np.arange(2 * n) + n) % (2 * n)
    return float((nearest == own).mean()), float(((nearest < n) != (np.arange(2 * n) < n)).mean())


@pytest.mark.parametrize(("n", "dim"), [(2, 3), (41, 5), (_BLOCK_ROWS + 1, 8)])
def test_mixing_is_that_of_the_dense_matrix(n: int, dim: int) -> None:
    random = np.random.default_rng(n)
    image = random.normal(size=(n, dim))
    text = image + 0.4 * random.normal(size=(n, dim)) + 0.2
    found = mixing(image, text)
    assert (found.own_pair, found.other_modality) == pytest.approx(dense_mixing(image, text))


def test_pairs_that_are_together_modalities_that_are_apart_and_points_that_are_one() -> None:
    axes = np.eye(6)
    together, apart = mixing(axes, axes + 0.01), mixing(axes + 3, axes - 3)
    assert (together.own_pair, together.other_modality) == (1.0, 1.0)
    assert (apart.own_pair, apart.other_modality) == (0.0, 0.0)
    one = mixing(np.ones((6, 3)), np.ones((6, 3)))  # ties count against
    assert (one.own_pair, one.other_modality) == (0.0, 0.0)


def test_chance_is_what_exchangeable_points_give() -> None:
    random = np.random.default_rng(0)
    found = [mixing(*random.normal(size=(2, 30, 4))) for _ in range(300)]
    assert np.mean([each.own_pair for each in found]) == pytest.approx(1 / 59, abs=0.004)
    assert np.mean([each.other_modality for each in found]) == pytest.approx(30 / 59, abs=0.02)
    assert (found[0].chance_own_pair, found[0].chance_other_modality) == (1 / 59, 30 / 59)


# --- the layout and its picture -----------------------------------------------------------------------------


def test_a_layout_keeps_what_is_together_together_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    groups = np.eye(3, 6)[np.arange(24) % 3]
    image, text = (unit(groups + 0.1 * random.normal(size=(24, 6))) for _ in range(2))
    layout, again = (lay_out(image, text, perplexity=5) for _ in range(2))
    np.testing.assert_array_equal(np.stack([layout.image, layout.text]), np.stack([again.image, again.text]))
    points, group = np.concatenate([layout.image, layout.text]), np.tile(np.arange(24) % 3, 2)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(axis=1)] == group).all()


def test_points_are_red_and_blue_and_a_line_joins_each_pair() -> None:
    random = np.random.default_rng(0)
    layout = Layout(*random.normal(size=(2, 7, 2)), divergence=1.0)
    (axes,) = pairs_figure(layout, heading="a", subtitle="b\nc").axes
    lines, points = axes.collections
    segments = np.array([path.vertices for path in lines.get_paths()])
    np.testing.assert_array_equal(segments[:, 0], layout.image)
    np.testing.assert_array_equal(segments[:, 1], layout.text)
    from matplotlib.colors import to_hex

    colour_of = dict(
        zip(map(tuple, np.asarray(points.get_offsets())), map(to_hex, points.get_facecolors()), strict=True)
    )
    assert {colour_of[tuple(point)] for point in layout.image} == {COLOURS["image"]}
    assert {colour_of[tuple(point)] for point in layout.text} == {COLOURS["text"]}


def test_each_perplexity_is_drawn_once_in_the_order_asked_for() -> None:
    assert check_perplexities((30, 5, 30), points=31) == (30, 5)


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run of 24 test and 24 validation images; tests only read it."""
    cache_dir = tmp_path_factory.mktemp("plot") / "cache"
    cache_dir.mkdir()
    paired_sets(cache_dir, n=120)
    return cache_dir, fit(toy(log__viz_frequency=2), cache_dir=cache_dir)


def plot(cache_dir: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["plot", "tsne", *options, "--cache-dir", str(cache_dir), "--json"]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record


def test_a_picture_for_each_perplexity_of_the_pairs_that_eval_judges(
    trained: tuple[Path, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_dir, run = trained
    record = plot(cache_dir, "--perplexity", "5", "--perplexity", "10", "--out", str(tmp_path), capsys=capsys)
    assert (record["split"], record["n_pairs"], record["epoch"]) == ("test", 24, run.info()["best_epoch"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tsne_perplexity_10.png",
        "tsne_perplexity_5.png",
    ]
    from PIL import Image

    for figure in record["figures"]:
        with Image.open(figure["path"]) as picture:
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 3
    drawn = judged_pairs(
        run, cache_dir=cache_dir, limit=24, split=None, space="embeddings", seed=0, device="cpu"
    )
    cosines = drawn.image @ drawn.text.T
    assert record["similarity"]["matched"] == pytest.approx(np.diag(cosines).mean(), abs=1e-6)
    assert record["mixing"]["own_pair"] == dense_mixing(drawn.image, drawn.text)[0]


def test_a_kept_epoch_is_drawn_without_the_features(
    trained: tuple[Path, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    options = (str(run.folder), "--epoch", "2", "--perplexity", "4", "--pairs", "20", "--out", str(tmp_path))
    record = plot(tmp_path, *options, capsys=capsys)
    assert (record["split"], record["n_pairs"], record["epoch"]) == ("val", 20, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["tsne_epoch_0002_perplexity_4.png"]
    with np.load(run.snapshots / "epoch-0002.npz") as arrays:
        image, text = (arrays[name].astype(np.float64) for name in ("image", "text"))
    drawn = np.random.default_rng(0).permutation(24)[:20]
    matched = (image * text).sum(axis=1)[drawn].mean()
    assert record["similarity"]["matched"] == pytest.approx(matched, abs=1e-6)


def test_the_seed_draws_the_pairs_and_few_lie_within_many(trained: tuple[Path, Run]) -> None:
    cache_dir, run = trained

    def drawn(limit: int, seed: int) -> set[tuple[float, ...]]:
        pairs = judged_pairs(
            run, cache_dir=cache_dir, limit=limit, split="train", space="embeddings", seed=seed, device="cpu"
        )
        assert pairs.split == "train"
        return {tuple(row) for row in pairs.image.round(4).tolist()}

    assert drawn(10, 0) < drawn(30, 0)
    assert drawn(10, 0) != drawn(10, 1)


def test_raw_features_of_two_towers_of_one_model_are_drawn(
    cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paired_sets(cache_dir, n=60, dims=(9, 9, 8))
    towers = {}
    for role in ("image", "text"):
        towers[f"data__{role}_encoder"] = (
            "clip@"
            + import_features(
                cache_dir / f"{role}.npz", dataset="toy", encoder="clip", modality=role, cache_dir=cache_dir
            ).manifest.key8
        )
    fit(toy(optim__epochs=1, optim__warmup_epochs=0, **towers), cache_dir=cache_dir)
    record = plot(
        cache_dir, "--features", "--perplexity", "5", "--out", str(tmp_path / "made"), capsys=capsys
    )
    assert (record["space"], record["epoch"]) == ("features", None)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["tsne_features_perplexity_5.png"]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--features", 2, "the features of image and text have no space in common"),
        ("--perplexity 48", 2, "perplexity 48: expected 2 to 47, as 48 points are drawn"),
        ("--perplexity 5 --perplexity 1", 2, "perplexity 1: expected 2 to 47"),
        ("--pairs 1", 2, "pairs = 1: expected at least 2"),
        ("--split dev1", 2, "has no dev1 images"),
        ("--epoch 1", 1, "kept no embeddings of epoch 1, but those of 3 epochs, 0 to 4"),
        ("--epoch 2 --split test", 2, "no --split, no --features"),
        ("--epoch 2 --features", 2, "no --split, no --features"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(
    line: str, code: int, said: str, trained: tuple[Path, Run], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    command = ["plot", "tsne", *line.split(), "--out", str(out), "--cache-dir", str(trained[0])]
    assert main(command) == code
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) <= 2
    assert not out.exists()


def test_without_json_paths_are_on_stdout_and_the_numbers_beside_them(
    trained: tuple[Path, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plot", "tsne", "--perplexity", "6", "--out", str(tmp_path), "--cache-dir", str(trained[0])]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'tsne_perplexity_6.png'}\n"
