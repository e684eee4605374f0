"""Closed forms: parity with scikit-learn and scipy, planted maps that are found, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import Ridge
from torch import Tensor

from align_cache.adapters.pair import unit
from align_cache.adapters.run_adapters import new_pair, solved_pair
from align_cache.closed_form import (
    Affine,
    Covariances,
    Solution,
    TrainingRows,
    canonical_directions,
    solve_cca,
    solve_procrustes,
    solve_ridge,
)
from align_cache.closed_form.cca import mean_reciprocal_rank
from align_cache.closed_form.covariance import products
from align_cache.closed_form.training_rows import Means
from align_cache.errors import AlignCacheError, ConfigError, NonFiniteError, ShapeError
from align_cache.settings import FitConfig, fit_config


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def captions_of(n: int, most: int = 4) -> Tensor:
    """Give each image one to ``most`` captions, in no order."""
    counts = torch.arange(n) % most + 1
    owners = torch.arange(n).repeat_interleave(counts)
    return owners[torch.randperm(len(owners), generator=torch.Generator().manual_seed(1))]


def shared(n: int = 120, *, noise: float = 0.5, dtype: torch.dtype = torch.float64) -> TrainingRows:
    """Draw images, captions and a reference that are noisy linear views of the same four causes."""
    causes = drawn(n, 4)
    owners = captions_of(n)
    image = causes @ drawn(4, 9, seed=2) + noise * drawn(n, 9, seed=3) + 0.7
    text = (causes @ drawn(4, 7, seed=4))[owners] + noise * drawn(len(owners), 7, seed=5) - 0.2
    reference = causes @ drawn(4, 6, seed=6) + noise * drawn(n, 6, seed=7) + 1.0
    return TrainingRows(image.to(dtype), text.to(dtype), owners, reference.to(dtype))


def without_reference(rows: TrainingRows) -> TrainingRows:
    return TrainingRows(rows.image, rows.text, rows.image_of_text)


def referred(rows: TrainingRows) -> Tensor:
    assert rows.reference is not None
    return rows.reference


def mapped(affine: Affine, rows: Tensor) -> Tensor:
    return rows.double() @ affine.weight.T + affine.bias


def test_ridge_is_scikit_learns_with_one_weight_for_each_image() -> None:
    rows = shared()
    solution = solve_ridge(rows, strength=0.3)
    weights = rows.caption_weights
    text_mean = (weights[:, None] * rows.text).sum(0) / rows.n
    text_variance = (weights[:, None] * (rows.text - text_mean).square()).sum(0).mean()  # times n
    for affine, features, target, own, scale in (
        (solution.image, rows.image, referred(rows), None, rows.n * rows.image.var(0, correction=0).mean()),
        (solution.text, rows.text, referred(rows)[rows.image_of_text], weights, text_variance),
    ):
        rival = Ridge(alpha=0.3 * float(scale)).fit(
            features.numpy(), target.numpy(), sample_weight=None if own is None else own.numpy()
        )
        assert np.allclose(affine.weight.numpy(), rival.coef_, atol=1e-10)
        assert np.allclose(affine.bias.numpy(), rival.intercept_, atol=1e-10)


def test_the_strength_of_ridge_has_the_least_error_on_the_images_held_out() -> None:
    rows = shared(60, noise=2.0)
    chosen = solve_ridge(rows, seed=4).chosen["regularization"]
    means = rows.means()
    fitted, held = rows.centred_on(means).hold_out(4)
    scale = (rows.image - means.image).square().mean()
    errors = {}
    for strength in (0.001, 0.01, 0.1, 1.0, 10.0, 100.0):
        # The same ridge by rows put below the data, which no closed form of ours is made of.
        lift = (strength * scale * rows.n).sqrt() * torch.eye(9, dtype=torch.float64)
        design = torch.cat([fitted.image, lift])
        target = torch.cat([referred(fitted), torch.zeros(9, 6, dtype=torch.float64)])
        weight = torch.linalg.lstsq(design, target).solution
        errors[strength] = (held.image @ weight - referred(held)).square().sum().item()
    assert chosen["image"] == min(errors, key=errors.__getitem__)


def test_ridge_finds_a_planted_map() -> None:
    image, owners = drawn(80, 9), captions_of(80)
    reference = image @ drawn(9, 6, seed=2) + 3
    text = image[owners] @ drawn(9, 9, seed=3)
    solution = solve_ridge(TrainingRows(image, text, owners, reference), strength=0.0)
    assert torch.allclose(mapped(solution.image, image), reference, atol=1e-8)
    assert torch.allclose(mapped(solution.text, text), reference[owners], atol=1e-8)


@pytest.mark.parametrize("width", [5, 9, 12], ids=["narrower", "as wide", "wider"])
def test_procrustes_onto_a_reference_is_semi_orthogonal(width: int) -> None:
    rows = shared()
    rows = TrainingRows(rows.image, rows.text, rows.image_of_text, drawn(rows.n, width, seed=8))
    weight = solve_procrustes(rows).image.weight
    gram = weight @ weight.T if width <= 9 else weight.T @ weight
    assert torch.allclose(gram, torch.eye(min(width, 9), dtype=torch.float64), atol=1e-10)


def test_procrustes_is_scipys_where_widths_agree() -> None:
    rows = shared()
    rows = TrainingRows(rows.image, rows.text, rows.image_of_text, drawn(rows.n, 9, seed=8))
    image = rows.image - rows.image.mean(0)
    expected, _ = scipy.linalg.orthogonal_procrustes(
        image.numpy(), (referred(rows) - referred(rows).mean(0)).numpy()
    )
    assert np.allclose(solve_procrustes(rows).image.weight.T.numpy(), expected, atol=1e-10)


def test_procrustes_undoes_a_planted_rotation() -> None:
    image, owners = drawn(80, 6), captions_of(80)
    rotation = torch.linalg.qr(drawn(6, 6, seed=2))[0]
    rows = TrainingRows(image, (image @ rotation)[owners] + 2, owners, image @ rotation.T)
    for given in (rows, without_reference(rows)):
        solution = solve_procrustes(given)
        a, b = mapped(solution.image, image)[owners], mapped(solution.text, rows.text)
        assert torch.allclose(a, b, atol=1e-8)
        assert torch.allclose(a.norm(dim=1), (image - image.mean(0)).norm(dim=1)[owners], atol=1e-8)


def test_procrustes_without_a_reference_keeps_the_leading_components() -> None:
    rows = without_reference(shared())
    whole, cut = solve_procrustes(rows), solve_procrustes(rows, components=3)
    assert whole.image.weight.shape == (7, 9)
    assert torch.equal(cut.text.weight, whole.text.weight[:3])
    covariance = mapped(whole.image, rows.image).T @ mapped(whole.text, mean_text(rows))
    spread = covariance.diagonal()
    assert torch.allclose(covariance, spread.diag(), atol=1e-8)
    assert (spread.diff() <= 0).all()


def mean_text(rows: TrainingRows) -> Tensor:
    return torch.stack([rows.text[rows.image_of_text == i].mean(0) for i in range(rows.n)])


def test_canonical_correlations_are_scikit_learns() -> None:
    rows = shared()
    rows = TrainingRows(rows.image, mean_text(rows), torch.arange(rows.n))  # it knows no weights
    rival = CCA(n_components=4, scale=False, max_iter=10_000, tol=1e-12)
    a, b = rival.fit_transform(rows.image.numpy(), rows.text.numpy())
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    found = canonical_directions(Covariances.of(rows.centred_on(rows.means())), strength=0.0)
    assert np.allclose(found.correlations[:4].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_cca_components_are_uncorrelated_and_scaled_by_their_correlation(power: float) -> None:
    rows = shared()
    solution = solve_cca(rows, strength=0.0, power=power)
    image, text = mapped(solution.image, rows.image), mapped(solution.text, rows.text)
    correlations = torch.tensor(solution.chosen["correlations"], dtype=torch.float64)
    expected = (correlations ** (2 * power)).diag()
    assert torch.allclose(image.T @ image / rows.n, expected, atol=1e-8)
    assert torch.allclose((rows.caption_weights[:, None] * text).T @ text / rows.n, expected, atol=1e-8)
    cross = image.T @ mapped(solution.text, mean_text(rows)) / rows.n
    assert torch.allclose(cross, (correlations ** (1 + 2 * power)).diag(), atol=1e-8)


def test_cca_finds_causes_that_are_shared_and_leaves_out_what_is_not() -> None:
    causes, n = drawn(400, 3), 400
    image = torch.cat([causes, drawn(n, 5, seed=2)], 1) @ drawn(8, 8, seed=3)
    text = torch.cat([causes, drawn(n, 4, seed=4)], 1) @ drawn(7, 7, seed=5)
    rows = TrainingRows(image, text, torch.arange(n))
    found = solve_cca(rows, strength=0.0, power=1.0).chosen["correlations"]
    assert np.allclose(found[:3], 1.0, atol=1e-8)
    assert max(found[3:]) < 0.4


def test_what_cca_chooses_has_the_best_rank_on_the_images_held_out() -> None:
    rows = shared(200, noise=1.5)
    chosen = solve_cca(rows, seed=3).chosen
    fitted, held = rows.centred_on(rows.means()).hold_out(3)
    first = torch.stack([held.text[held.image_of_text == i][0] for i in range(held.n)])
    scores = {}
    for strength in (0.01, 0.1, 1.0, 10.0):
        for power in (0.5, 1.0, 2.0):
            found = solve_on(fitted, strength, power)
            image, text = held.image @ found.image.weight.T, first @ found.text.weight.T
            scores[strength, power] = plain_reciprocal_rank(image, text)
    best = max(scores.values())
    assert scores[chosen["regularization"], chosen["cca_power"]] == pytest.approx(best, abs=1e-9)
    assert min(scores.values()) < best


def solve_on(fitted: TrainingRows, strength: float, power: float) -> Solution:
    """Solve from rows that are centred already, about the means of more images than these."""
    found = canonical_directions(Covariances.of(fitted), strength=strength)
    scale = found.correlations[:, None] ** power
    zero = torch.zeros(1, dtype=torch.float64)
    return Solution(Affine(found.image * scale, zero), Affine(found.text * scale, zero), {})


def plain_reciprocal_rank(image: Tensor, text: Tensor) -> float:
    total = 0.0
    for a, b in ((image, text), (text, image)):
        for i in range(len(a)):
            cosines = [float(torch.cosine_similarity(a[i], other, dim=0)) for other in b]
            total += 1 / sum(cosine >= cosines[i] for cosine in cosines)
    return total / (2 * len(image))


def test_the_reciprocal_rank_of_perfect_and_of_equal_rows() -> None:
    rows = drawn(5, 3)
    assert mean_reciprocal_rank(rows, rows) == 1.0
    assert mean_reciprocal_rank(torch.ones(5, 3), torch.ones(5, 3)) == pytest.approx(1 / 5)


Solver = Callable[..., Solution]
SOLVERS: dict[str, tuple[Solver, dict[str, Any]]] = {
    "ridge": (solve_ridge, {"strength": 0.1}),
    "procrustes": (solve_procrustes, {}),
    "cca": (solve_cca, {"strength": 0.1, "power": 1.0}),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_repeating_every_caption_of_an_image_changes_nothing(name: str) -> None:
    solve, arguments = SOLVERS[name]
    rows = shared(40)
    third = rows.image_of_text % 3 == 0  # these images get each caption twice
    owners = torch.cat([rows.image_of_text, rows.image_of_text[third]])
    repeated = TrainingRows(rows.image, torch.cat([rows.text, rows.text[third]]), owners, rows.reference)
    once, twice = solve(rows, **arguments), solve(repeated, **arguments)
    for a, b in ((once.image, twice.image), (once.text, twice.text)):
        assert torch.allclose(a.weight.abs(), b.weight.abs(), atol=1e-8)  # a direction's sign is arbitrary


@pytest.mark.parametrize("name", SOLVERS)
def test_fewer_images_than_components_are_solved_when_regularised(name: str) -> None:
    solve, arguments = SOLVERS[name]
    rows = TrainingRows(drawn(5, 9), drawn(10, 7, seed=1), torch.arange(5).repeat(2), drawn(5, 6, seed=2))
    solution = solve(rows, **arguments)
    for affine in (solution.image, solution.text):
        assert affine.weight.isfinite().all()
    if name != "procrustes":
        with pytest.raises(ShapeError, match="5 images do not tell 9 components apart"):
            solve(rows, **{**arguments, "strength": 0.0})


@pytest.mark.parametrize("name", SOLVERS)
def test_float32_rows_give_the_solution_of_float64_rows(name: str) -> None:
    solve, arguments = SOLVERS[name]
    exact, single = shared(300), shared(300, dtype=torch.float32)
    for a, b in zip(
        mapped_pair(solve(exact, **arguments), exact),
        mapped_pair(solve(single, **arguments), exact),
        strict=True,
    ):
        assert torch.allclose(a @ a.T, b @ b.T, atol=1e-3)  # whatever the signs


def mapped_pair(solution: Solution, rows: TrainingRows) -> tuple[Tensor, Tensor]:
    return mapped(solution.image, rows.image), mapped(solution.text, rows.text)


def test_products_are_summed_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align_cache.closed_form.covariance._BLOCK_ROWS", 7)
    x, y, weights = drawn(23, 4), drawn(23, 3, seed=1), drawn(23, seed=2)
    assert torch.allclose(products(x, y), x.T @ y)
    assert torch.allclose(products(x, y, weights), x.T @ weights.diag() @ y)
    assert torch.equal(products(x[:0], y[:0]), torch.zeros(4, 3, dtype=torch.float64))


def test_a_split_is_by_image_and_keeps_each_with_its_captions() -> None:
    rows = shared(30)
    fitted, held = rows.hold_out(0)
    assert (fitted.n, held.n) == (27, 3)
    for part in (fitted, held):
        for i in range(part.n):
            place = int((rows.image == part.image[i]).all(1).nonzero())
            assert torch.equal(part.text[part.image_of_text == i], rows.text[rows.image_of_text == place])
            assert torch.equal(referred(part)[i], referred(rows)[place])
            assert torch.equal(part.first_text()[i], rows.text[rows.image_of_text == place][0])
    assert torch.equal(rows.hold_out(0)[1].image, held.image)
    assert not torch.equal(rows.hold_out(1)[1].image, held.image)


def test_means_weigh_images_alike() -> None:
    rows = shared(10)
    means = rows.means()
    assert isinstance(means, Means)
    assert torch.allclose(means.text, mean_text(rows).mean(0))
    centred = rows.centred_on(means)
    assert torch.allclose(centred.mean_text().mean(0), torch.zeros(7, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image": drawn(1, 9)}, ShapeError, "1 images"),
        ({"image": drawn(10)}, ShapeError, "image: expected rows"),
        ({"image": drawn(10, 9).fill_(torch.nan)}, NonFiniteError, "image holds NaN"),
        ({"text": drawn(10, 7).index_fill(0, torch.tensor(3), -torch.inf)}, NonFiniteError, "text holds NaN"),
        ({"reference": drawn(9, 6)}, ShapeError, "10 images and 9 rows"),
        ({"image_of_text": torch.arange(9)}, ShapeError, "10 captions, and image_of_text has shape"),
        ({"image_of_text": torch.zeros(10, dtype=torch.int64)}, ShapeError, "each of the 10 images needs"),
        ({"image_of_text": torch.arange(10) + 1}, ShapeError, "each of the 10 images needs"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    change: dict[str, Tensor], error: type[AlignCacheError], words: str
) -> None:
    good = {"image": drawn(10, 9), "text": drawn(10, 7), "image_of_text": torch.arange(10)}
    with pytest.raises(error, match=words):
        TrainingRows(**{**good, **change})


def test_rows_whose_sum_overflows_are_finite_all_the_same() -> None:
    huge = torch.full((4, 3), 3e38)
    assert not huge.sum().isfinite()
    assert TrainingRows(huge, huge, torch.arange(4)).n == 4


def test_what_cannot_be_solved_is_refused_with_the_way_out() -> None:
    rows = shared(20)
    with pytest.raises(ShapeError, match="there is none") as refused:
        solve_ridge(without_reference(rows))
    assert "data.reference" in str(refused.value)
    with pytest.raises(ShapeError, match="8 components, and the narrower modality has 7"):
        solve_cca(rows, components=8)
    with pytest.raises(ShapeError, match="8 components, and the narrower modality has 7"):
        solve_procrustes(without_reference(rows), components=8)
    with pytest.raises(ShapeError, match="5 components, and the reference has 6"):
        solve_procrustes(rows, components=5)
    few = TrainingRows(drawn(3, 2), drawn(3, 2), torch.arange(3))
    with pytest.raises(ShapeError, match="at least 4 are needed"):
        solve_cca(few)
    assert solve_cca(few, strength=1.0, power=1.0).image.weight.shape == (2, 2)


@pytest.mark.parametrize(("kind", "width"), [("ridge", 6), ("procrustes", 6), ("cca", 7)])
def test_a_solution_is_a_pair_of_plain_affine_heads(kind: str, width: int) -> None:
    config = fit_config(flags={"adapter.type": kind})
    rows = shared(dtype=torch.float32)
    solved = solved_pair(config, rows)
    assert solved.embed_dim == width
    assert not solved.pair.training
    again = new_pair(config, 9, 7, width).eval()
    again.load_state_dict(solved.pair.state_dict())
    solve, _ = SOLVERS[kind]
    solution = solve(rows) if kind == "procrustes" else solve(rows, seed=config.seed)
    assert torch.allclose(again.image(rows.image), mapped(solution.image, rows.image).float(), atol=1e-4)
    assert torch.allclose(again.text(rows.text), mapped(solution.text, rows.text).float(), atol=1e-4)


def config_of(kind: str, **adapter: object) -> FitConfig:
    return fit_config(
        flags={"adapter.type": kind, **{f"adapter.{key}": value for key, value in adapter.items()}}
    )


def test_settings_that_a_closed_form_contradicts_are_refused() -> None:
    with pytest.raises(ConfigError, match="ridge regresses onto data"):
        fit_config(
            assignments=("data.reference=none", "loss.distribution_matching=false", "adapter.type=ridge")
        )
    with pytest.raises(ConfigError, match="ridge predicts the 6 components"):
        solved_pair(config_of("ridge", embed_dim=5), shared())


def test_what_the_settings_say_is_not_chosen() -> None:
    given = config_of("cca", embed_dim=3, regularization=0.1, cca_power=0.5)
    solved = solved_pair(given, shared(dtype=torch.float32))
    assert solved.embed_dim == 3
    assert (solved.chosen["regularization"], solved.chosen["cca_power"]) == (0.1, 0.5)


def test_on_real_features_closed_forms_retrieve_far_above_chance(real_data: Path) -> None:
    rows, dev = (
        real_rows(real_data / "real-features", split, n) for split, n in (("train", 1500), ("dev", 200))
    )
    for solution in (solve_ridge(rows), solve_procrustes(rows), solve_cca(rows)):
        image, text = unit(mapped(solution.image, dev.image)), unit(mapped(solution.text, dev.first_text()))
        assert mean_reciprocal_rank(image, text) > 0.15  # by chance 0.03


def real_rows(folder: Path, split: str, n: int) -> TrainingRows:
    image, text, reference = (
        np.load(folder / f"{name}.npz")
        for name in ("images-mobilenet_v2", "captions-lsa_glove", "images-mobilenet_v1")
    )
    chosen = np.flatnonzero(image["split"] == split)[:n]
    ids = image["sample_id"][chosen].tolist()
    row_of = {sample_id: row for row, sample_id in enumerate(reference["sample_id"].tolist())}
    position = {sample_id: i for i, sample_id in enumerate(ids)}
    owners = np.array([position.get(group, -1) for group in text["group_id"].tolist()])
    return TrainingRows(
        torch.from_numpy(image["features"][chosen]).float(),
        torch.from_numpy(text["features"][owners >= 0]).float(),
        torch.from_numpy(owners[owners >= 0]),
        torch.from_numpy(reference["features"][[row_of[i] for i in ids]]).float(),
    )
