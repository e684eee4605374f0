"""Losses: the mathematics against written-out loops and hand-worked cases; many batches against one."""

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from align_cache.adapters.pair import fuse, unit
from align_cache.errors import ShapeError
from align_cache.losses import (
    CONTRASTIVE,
    DISTRIBUTION,
    Direction,
    Directions,
    Objective,
    coral,
    hard_negative,
    infonce,
    log_variance_matching,
    mmd,
    ntxent,
    scaled_variance,
    siglip,
    structure_preservation,
    variance_matching,
)
from align_cache.losses.objective import Contrastive, Distribution
from align_cache.settings import DataSettings, FitConfig, LossSettings

SIZES = [(1, 3), (2, 5), (7, 4), (17, 33)]
OWN: dict[str, dict[str, Any]] = {"siglip": {"bias": -3.0}, "hard_negative": {"hardness": 0.7}}


def rows(n: int, dim: int, seed: int = 0) -> Tensor:
    return unit(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)))


def double(*tensors: Tensor) -> Any:
    return [tensor.double().numpy() for tensor in tensors]


# --- contrastive: each as its definition says, a candidate at a time --------------------------------------


def cross_entropy(logits: list[float], own: int, smoothing: float) -> float:
    log_z = math.log(sum(math.exp(x) for x in logits))
    log_p = [x - log_z for x in logits]
    return -(1 - smoothing) * log_p[own] - smoothing / len(logits) * sum(log_p)


def plain_infonce(a: Any, b: Any, temperature: float, smoothing: float) -> float:
    losses = [cross_entropy([float(x @ y) / temperature for y in b], i, smoothing) for i, x in enumerate(a)]
    return sum(losses) / len(a)


def plain_ntxent(a: Any, b: Any, temperature: float, smoothing: float) -> float:
    total = 0.0
    for i, x in enumerate(a):
        candidates = [*b, *(y for j, y in enumerate(a) if j != i)]
        total += cross_entropy([float(x @ y) / temperature for y in candidates], i, smoothing)
    return total / len(a)


def plain_siglip(a: Any, b: Any, temperature: float, smoothing: float, bias: float) -> float:
    n, total = len(a), 0.0
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            p = 1 / (1 + math.exp(-(float(x @ y) / temperature + bias)))
            label = (1 - smoothing) * (i == j) + smoothing / n
            total -= label * math.log(p) + (1 - label) * math.log(1 - p)
    return total / n


def plain_hard_negative(a: Any, b: Any, temperature: float, smoothing: float, hardness: float) -> float:
    n, total = len(a), 0.0
    for i, x in enumerate(a):
        logits = [float(x @ y) / temperature for y in b]
        hard = [math.exp(hardness * s) for j, s in enumerate(logits) if j != i]
        weights = [(n - 1) * h / sum(hard) for h in hard]
        negatives = [math.exp(s) for j, s in enumerate(logits) if j != i]
        z = math.exp(logits[i]) + sum(w * s for w, s in zip(weights, negatives, strict=True))
        total += math.log(z) - (1 - smoothing) * logits[i] - smoothing * sum(logits) / n
    return total / n


PLAIN = {
    "infonce": plain_infonce,
    "siglip": plain_siglip,
    "ntxent": plain_ntxent,
    "hard_negative": plain_hard_negative,
}


@pytest.mark.parametrize(
    ("name", "n", "dim"),
    [(name, n, dim) for name in CONTRASTIVE for n, dim in SIZES if n > 1 or name != "hard_negative"],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_each_contrastive_loss_is_its_written_out_formula(
    name: str, n: int, dim: int, smoothing: float
) -> None:
    image, text = rows(n, dim), rows(n, dim, 1)
    own = OWN.get(name, {})
    ways = CONTRASTIVE[name](image, text, temperature=0.2, label_smoothing=smoothing, **own)
    a, b = double(image, text)
    assert ways.image_to_text.item() == pytest.approx(PLAIN[name](a, b, 0.2, smoothing, **own), abs=2e-5)
    assert ways.text_to_image.item() == pytest.approx(PLAIN[name](b, a, 0.2, smoothing, **own), abs=2e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_infonce_is_torchs_cross_entropy_of_both_directions(smoothing: float) -> None:
    image, text = rows(9, 4), rows(9, 4, 1)
    logits, labels = image @ text.T / 0.1, torch.arange(9)
    ways = infonce(image, text, temperature=0.1, label_smoothing=smoothing)
    for ours, theirs in ((ways.image_to_text, logits), (ways.text_to_image, logits.T)):
        expected = F.cross_entropy(theirs, labels, label_smoothing=smoothing)
        assert ours.item() == pytest.approx(expected.item(), abs=1e-5)


def test_embeddings_that_carry_nothing_cost_the_logarithm_of_the_number_of_candidates() -> None:
    same = rows(1, 6).expand(8, 6)
    assert infonce(same, same, temperature=0.07).image_to_text.item() == pytest.approx(math.log(8), abs=1e-5)
    assert ntxent(same, same, temperature=0.07).text_to_image.item() == pytest.approx(math.log(15), abs=1e-5)


def test_hard_negatives_of_no_hardness_are_infonce_and_the_hardest_stands_for_all_in_the_limit() -> None:
    image, text = rows(6, 5), rows(6, 5, 1)
    plain = infonce(image, text, temperature=0.3, label_smoothing=0.1)
    soft = hard_negative(image, text, temperature=0.3, label_smoothing=0.1, hardness=0.0)
    for way, expected in zip(soft, plain, strict=True):
        assert way.item() == pytest.approx(expected.item(), abs=1e-5)
    logits = image @ text.T / 0.3
    hardest = logits.masked_fill(torch.eye(6, dtype=torch.bool), -math.inf).amax(1)
    limit = torch.logaddexp(logits.diagonal(), hardest + math.log(5)) - logits.diagonal()
    hard = hard_negative(image, text, temperature=0.3, hardness=1e4).image_to_text
    assert hard.item() == pytest.approx(limit.mean().item(), abs=1e-3)


def test_the_gradient_of_hard_negatives_runs_through_their_weights() -> None:
    """By finite differences in the embeddings: with constant weights they would not agree."""
    image, text = rows(5, 4), rows(5, 4, 1)
    direction, step = rows(5, 4, 2), 1e-3

    def loss(shift: float) -> Tensor:
        moved = image + shift * direction
        return hard_negative(moved, text, temperature=0.3, hardness=2.0).image_to_text

    image.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(0.0), image)
    image.requires_grad_(False)
    slope = (loss(step) - loss(-step)).item() / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=5e-3)


def test_a_batch_of_one_pair_has_no_negatives_to_weigh() -> None:
    with pytest.raises(ShapeError, match="1 pair has no negatives"):
        hard_negative(rows(1, 4), rows(1, 4), temperature=0.1, hardness=1.0)


def test_siglip_at_the_papers_start_costs_what_its_bias_says() -> None:
    """Orthogonal pairs, temperature 0.1, bias −10: each pair is wrong by 10, each of the rest is right."""
    image, text = torch.eye(8)[:4], torch.eye(8)[4:]
    ways = siglip(image, text, temperature=0.1, bias=-10.0)
    expected = math.log1p(math.exp(10)) + 3 * math.log1p(math.exp(-10))
    assert ways.image_to_text.item() == pytest.approx(expected, rel=1e-6)
    assert ways.text_to_image.item() == ways.image_to_text.item()


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_contrastive_loss_does_not_see_a_rotation_or_a_permutation(name: str) -> None:
    image, text = rows(12, 6), rows(12, 6, 1)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))[0]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))

    def loss(a: Tensor, b: Tensor) -> list[float]:
        ways: Directions = CONTRASTIVE[name](a, b, temperature=0.1, label_smoothing=0.1, **OWN.get(name, {}))
        return [way.item() for way in ways]

    expected = loss(image, text)
    assert loss(image @ rotation, text @ rotation) == pytest.approx(expected, abs=2e-5)
    assert loss(image[order], text[order]) == pytest.approx(expected, abs=2e-5)


# --- distribution terms -----------------------------------------------------------------------------------


def test_scaled_variance_is_the_population_variance_times_the_width() -> None:
    values = rows(33, 7)
    assert torch.allclose(scaled_variance(values), 7 * values.var(0, correction=0), atol=1e-6)


def test_isotropic_rows_have_scaled_variance_one() -> None:
    assert torch.allclose(scaled_variance(rows(200_000, 8)), torch.ones(8), atol=0.02)


def plain_variance(z: Any, r: Any) -> float:
    dim = z.shape[1]
    return sum((dim * z[:, d].var() - dim * r[:, d].var()) ** 2 for d in range(dim)) / dim


def plain_log_variance(z: Any, r: Any) -> float:
    dim = z.shape[1]
    logs = [[math.log(dim * x[:, d].var() + 1e-4) for d in range(dim)] for x in (z, r)]
    return sum((a - b) ** 2 for a, b in zip(*logs, strict=True)) / dim


def plain_coral(z: Any, r: Any) -> float:
    ours, theirs = (np.cov(x, rowvar=False, bias=True) for x in (z, r))
    return float(((ours - theirs) ** 2).sum() / (theirs**2).sum())


def plain_mmd(z: Any, r: Any) -> float:
    variance = np.mean([((x - y) ** 2).sum() for x in r for y in r])

    def mean_kernel(a: Any, b: Any) -> float:
        kernels = [math.exp(-((x - y) ** 2).sum() / (2 * variance)) for x in a for y in b]
        return float(np.mean(kernels))

    return (mean_kernel(z, z) + mean_kernel(r, r) - 2 * mean_kernel(z, r)) / (1 - mean_kernel(r, r))


PLAIN_TERM = {
    "variance": plain_variance,
    "log_variance": plain_log_variance,
    "coral": plain_coral,
    "mmd": plain_mmd,
}


@pytest.mark.parametrize("name", DISTRIBUTION)
@pytest.mark.parametrize(("n", "dim"), [size for size in SIZES if size[0] > 1])
def test_each_distribution_term_is_its_written_out_formula(name: str, n: int, dim: int) -> None:
    z, r = rows(n, dim), rows(n, dim, 1)
    assert DISTRIBUTION[name](z, r).item() == pytest.approx(PLAIN_TERM[name](*double(z, r)), rel=1e-4)


@pytest.mark.parametrize("name", DISTRIBUTION)
def test_a_distribution_term_of_the_same_rows_in_any_order_is_zero(name: str) -> None:
    z = rows(64, 5)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    assert DISTRIBUTION[name](z, z[order]).item() == pytest.approx(0.0, abs=1e-5)


def test_only_mmd_sees_where_rows_lie_and_only_coral_of_the_rest_sees_correlation() -> None:
    shifted = unit(rows(200, 6) + torch.tensor([0.7, 0, 0, 0, 0, 0]))
    for term in (variance_matching, log_variance_matching, coral):
        assert term(-shifted, shifted).item() == pytest.approx(0.0, abs=1e-5)
    assert mmd(-shifted, shifted).item() > 0.5
    x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    together, opposed = torch.cat([x, x], 1), torch.cat([x, -x], 1)
    for term in (variance_matching, log_variance_matching):
        assert term(opposed, together).item() == pytest.approx(0.0, abs=1e-5)
    assert coral(opposed, together).item() == pytest.approx(2.0, rel=1e-4)  # (2·4c²) / 4c²


def test_embeddings_that_are_all_the_same_are_off_by_the_whole_covariance() -> None:
    same, r = rows(1, 6).expand(40, 6), rows(40, 6, 1)
    assert coral(same, r).item() == pytest.approx(1.0, rel=1e-4)


def test_twice_the_variance_costs_the_same_in_loud_and_quiet_dimensions_under_the_logarithm() -> None:
    quiet = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.1])
    for axis in (0, 1):
        louder = quiet.clone()
        louder[:, axis] *= math.sqrt(2)
        assert log_variance_matching(louder, quiet).item() == pytest.approx(math.log(2) ** 2 / 2, rel=0.02)


def test_the_plain_squared_difference_would_be_inert_and_the_scaled_one_is_not() -> None:
    """The reason for the dimension-scaled form: at 768 dimensions the plain term is about 1e-6 or less."""
    z = unit(torch.randn(256, 768, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 2, 768))
    r = rows(256, 768, 1)
    plain = (z.var(0) - r.var(0)).square().mean().item()
    assert plain < 1e-5
    assert variance_matching(z, r).item() > 0.1


@pytest.mark.parametrize("name", DISTRIBUTION)
def test_a_batch_without_any_spread_gives_a_finite_term_and_gradient(name: str) -> None:
    z = rows(1, 5).expand(4, 5).clone().requires_grad_()
    term = DISTRIBUTION[name](z, rows(1, 5).expand(4, 5))
    term.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(term)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


# --- the structure term -----------------------------------------------------------------------------------


def plain_structure(features: Any, embeddings: Any, temperature: float, levels: int) -> float:
    steps = []
    for x in (features, embeddings):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        x = x - x.mean(0)
        weights = np.exp(x @ x.T / temperature)
        steps.append(weights / weights.sum(1, keepdims=True))
    total = 0.0
    for level in range(1, levels + 1):
        p, q = (np.linalg.matrix_power(step, level) for step in steps)
        for i in range(len(p)):
            middle = (p[i] + q[i]) / 2
            apart = (p[i] * np.log(p[i] / middle)).sum() + (q[i] * np.log(q[i] / middle)).sum()
            total += apart / 2 / len(p) / level
    return total / levels


@pytest.mark.parametrize(("n", "dim"), SIZES)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_structure_term_is_its_written_out_formula(n: int, dim: int, levels: int) -> None:
    features, embeddings = 3 * rows(n, dim), rows(n, 6, 1)
    expected = plain_structure(*double(features, embeddings), temperature=0.2, levels=levels)
    found = structure_preservation(features, embeddings, temperature=0.2, levels=levels).item()
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_rotation_into_a_wider_space_keeps_the_structure_and_other_rows_do_not() -> None:
    features = 3 * rows(20, 5)
    into = torch.linalg.qr(torch.randn(9, 5, generator=torch.Generator().manual_seed(1)))[0]
    assert structure_preservation(features, features @ into.T, temperature=0.1, levels=2) < 1e-6
    other = structure_preservation(features, rows(20, 9, 2), temperature=0.1, levels=2).item()
    assert 0.01 < other < math.log(2)


def test_neighbourhoods_so_sharp_that_they_underflow_give_a_finite_gradient() -> None:
    embeddings = rows(12, 5, 1).requires_grad_()
    term = structure_preservation(rows(12, 7), embeddings, temperature=0.001, levels=3)
    term.backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    assert 0 <= term.item() <= math.log(2)


# --- the objective ----------------------------------------------------------------------------------------


def judged(objective: Objective, n: int = 16, dim: int = 6, **call: Any) -> tuple[float, float, float]:
    image, text, reference = (rows(n, dim, seed) for seed in range(3))
    parts = objective(image, text, reference, temperature=0.2, **call)
    return parts.total.item(), parts.contrastive.item(), parts.distribution.item()


@pytest.mark.parametrize("name", DISTRIBUTION)
def test_the_objective_adds_the_weighted_term_of_the_fused_embedding(name: Distribution) -> None:
    image, text, reference = (rows(16, 6, seed) for seed in range(3))
    objective = Objective(label_smoothing=0.1, distribution=name, variance_weight=0.4)
    total, pull, match = judged(objective)
    expected = DISTRIBUTION[name](F.normalize((image + text) / 2, dim=1), reference).item()
    assert match == pytest.approx(expected, rel=1e-5)
    assert total == pytest.approx(pull + 0.4 * match, rel=1e-6)
    off = judged(Objective(label_smoothing=0.1, variance_weight=None))
    assert off == (pull, pull, 0.0)


def test_the_objective_adds_the_weighted_structure_of_both_modalities() -> None:
    image, text = rows(16, 6), rows(16, 6, 1)
    features = (rows(16, 9, 5), rows(16, 4, 6))
    objective = Objective(structure_weight=2.5, structure_temperature=0.3, structure_levels=2)
    total, pull, _ = judged(objective, features=features)
    expected = sum(
        structure_preservation(own, made, temperature=0.3, levels=2).item()
        for own, made in zip(features, (image, text), strict=True)
    )
    assert total == pytest.approx(pull + 2.5 * expected, rel=1e-6)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_direction_is_one_of_the_two_and_both_is_their_mean(name: Contrastive) -> None:
    image, text = rows(16, 6), rows(16, 6, 1)
    own = OWN.get(name, {})
    ways = CONTRASTIVE[name](image, text, temperature=0.2, label_smoothing=0.1, **own)
    expected = {
        "image_to_text": ways.image_to_text.item(),
        "text_to_image": ways.text_to_image.item(),
        "both": (ways.image_to_text.item() + ways.text_to_image.item()) / 2,
    }
    for direction in get_args(Direction):
        objective = Objective(contrastive=name, direction=direction, label_smoothing=0.1, **own)
        assert judged(objective)[0] == pytest.approx(expected[direction], rel=1e-6)


def test_a_learned_bias_stands_in_for_the_fixed_one_and_gets_a_gradient() -> None:
    fixed = judged(Objective(contrastive="siglip", bias=-2.0))
    bias = torch.tensor(-2.0, requires_grad=True)
    image, text = rows(16, 6), rows(16, 6, 1)
    parts = Objective(contrastive="siglip")(image, text, None, temperature=0.2, bias=bias)
    parts.total.backward()  # type: ignore[no-untyped-call]
    assert parts.total.item() == fixed[0]
    assert bias.grad is not None
    assert bias.grad.item() != 0


@pytest.mark.parametrize("contrastive", CONTRASTIVE)
@pytest.mark.parametrize("distribution", DISTRIBUTION)
def test_batches_of_several_runs_judged_at_once_are_what_each_is_alone(
    contrastive: Contrastive, distribution: Distribution
) -> None:
    """Three runs of two micro-batches, every hyperparameter another: values, and gradients of embeddings."""
    runs, batches, n, dim = 3, 2, 7, 5
    image, text, reference, own_image, own_text = (
        rows(runs * batches * n, width, seed).view(runs, batches, n, width)
        for seed, width in enumerate((dim, dim, dim, 9, 4))
    )
    values = {
        "label_smoothing": (0.0, 0.1, 0.3),
        "bias": (-1.0, -5.0, -10.0),
        "hardness": (0.0, 0.5, 2.0),
        "variance_weight": (0.0, 0.4, 3.0),
        "structure_weight": (1.0, 0.0, 7.0),
        "structure_temperature": (0.05, 0.2, 1.0),
    }
    temperatures = (0.05, 0.2, 1.0)
    static: Any = {"contrastive": contrastive, "distribution": distribution, "structure_levels": 2}
    stacked: Any = {key: torch.tensor(each)[:, None] for key, each in values.items()}
    together = Objective(**static, **stacked)

    def gradient(objective: Objective, at: Any, temperature: Any) -> tuple[Tensor, Tensor]:
        embeddings = image[at].clone().requires_grad_()
        parts = objective(
            embeddings,
            text[at],
            reference[at],
            temperature=temperature,
            features=(own_image[at], own_text[at]),
        )
        (found,) = torch.autograd.grad(parts.total.sum(), embeddings)
        return torch.stack([part.detach() for part in parts]), found

    parts, gradients = gradient(together, slice(None), torch.tensor(temperatures)[:, None])
    assert parts.shape == (3, runs, batches)
    for run in range(runs):
        own: Any = {key: each[run] for key, each in values.items()}
        alone = Objective(**static, **own)
        for batch in range(batches):
            expected, slope = gradient(alone, (run, batch), temperatures[run])
            assert torch.allclose(parts[:, run, batch], expected, rtol=1e-5, atol=2e-6)
            assert torch.allclose(gradients[run, batch], slope, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("contrastive", CONTRASTIVE)
@pytest.mark.parametrize("distribution", DISTRIBUTION)
def test_no_loss_reads_a_value_back_to_the_host(contrastive: Contrastive, distribution: Distribution) -> None:
    """On the meta device there are shapes and no values: a branch or a size that needs one would raise."""
    image, text, reference, features = (torch.empty(3, 2, 7, 5, device="meta") for _ in range(4))
    one = torch.empty(3, 1, device="meta")
    objective = Objective(
        contrastive=contrastive,
        distribution=distribution,
        bias=one,
        hardness=one,
        variance_weight=one,
        structure_weight=one,
        structure_levels=2,
    )
    image.requires_grad_()
    parts = objective(image, text, reference, temperature=one, features=(features, features))
    parts.total.sum().backward()  # type: ignore[no-untyped-call]
    assert parts.total.shape == (3, 2)
    assert image.grad is not None


def test_rows_of_low_precision_are_judged_in_float32() -> None:
    image, text, reference = (rows(16, 6, seed).bfloat16() for seed in range(3))
    low = Objective(variance_weight=0.4)(image, text, reference, temperature=0.2)
    full = Objective(variance_weight=0.4)(*(x.float() for x in (image, text, reference)), temperature=0.2)
    assert low.total.dtype == torch.float32
    assert low.contrastive.item() == full.contrastive.item()
    assert low.total.item() == pytest.approx(full.total.item(), rel=1e-2)  # fused in bfloat16


def test_settings_objective_and_registries_name_the_same_losses() -> None:
    fields = LossSettings.model_fields
    assert get_args(fields["contrastive"].annotation) == get_args(Contrastive) == tuple(CONTRASTIVE)
    assert get_args(fields["distribution"].annotation) == get_args(Distribution) == tuple(DISTRIBUTION)
    assert get_args(fields["direction"].annotation) == get_args(Direction)


def test_the_bias_of_siglip_starts_at_the_odds_of_a_pair_unless_it_is_given() -> None:
    """Then embeddings that carry nothing are judged 1/n likely to be a pair, which is what they are."""
    bias = FitConfig(data=DataSettings(batch_size=64)).siglip_bias
    assert 1 / (1 + math.exp(-bias)) == pytest.approx(1 / 64)
    assert FitConfig(loss=LossSettings(siglip_bias=-10.0)).siglip_bias == -10.0


def test_siglip_in_one_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="siglip judges each image with each text"):
        LossSettings(contrastive="siglip", direction="text_to_image")


def test_the_aligned_embedding_is_the_unit_mean() -> None:
    image, text = rows(3, 4), rows(3, 4, 1)
    mean = (image + text) / 2
    assert torch.allclose(fuse(image, text), mean / mean.norm(dim=1, keepdim=True), atol=1e-6)
