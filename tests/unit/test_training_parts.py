"""Losses, schedule, adapters: the mathematics, against torch and against hand-worked cases."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from align_cache.adapters import build_adapter, build_pair, fuse, n_parameters, unit
from align_cache.losses import Objective, contrastive, scaled_variance, variance_matching
from align_cache.schedule import warmup_cosine


def rows(n: int, dim: int, seed: int = 0) -> Tensor:
    return unit(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("n", [1, 2, 3, 17])
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_the_contrastive_loss_is_the_written_out_formula(n: int, smoothing: float) -> None:
    image, text, temperature = rows(n, 5), rows(n, 5, 1), 0.2
    total = 0.0
    for a, b in ((image, text), (text, image)):
        for i in range(n):
            logits = [float(a[i] @ b[j]) / temperature for j in range(n)]
            log_z = math.log(sum(math.exp(x) for x in logits))
            log_p = [x - log_z for x in logits]
            total -= (1 - smoothing) * log_p[i] + smoothing / n * sum(log_p)
    loss = contrastive(image, text, temperature=temperature, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(total / (2 * n), abs=1e-5)


def test_one_direction_is_the_loss_of_the_second_document() -> None:
    image, text = rows(9, 4), rows(9, 4, 1)
    logits = text @ image.T / 0.1
    expected = -(logits.diagonal() - logits.logsumexp(1)).mean()
    assert contrastive(image, text, temperature=0.1, direction="text_to_image").item() == pytest.approx(
        expected.item(), abs=1e-5
    )
    both = contrastive(image, text, temperature=0.1)
    other = contrastive(image, text, temperature=0.1, direction="image_to_text")
    assert both.item() == pytest.approx((expected.item() + other.item()) / 2, abs=1e-5)


def test_embeddings_that_carry_nothing_cost_log_n() -> None:
    same = rows(1, 6).expand(8, 6)
    assert contrastive(same, same, temperature=0.07).item() == pytest.approx(math.log(8), abs=1e-5)


def test_the_contrastive_loss_does_not_see_a_rotation_or_a_permutation() -> None:
    image, text = rows(12, 6), rows(12, 6, 1)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))[0]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    expected = contrastive(image, text, temperature=0.1).item()
    assert contrastive(image @ rotation, text @ rotation, temperature=0.1).item() == pytest.approx(
        expected, abs=1e-5
    )
    assert contrastive(image[order], text[order], temperature=0.1).item() == pytest.approx(expected, abs=1e-5)


def test_scaled_variance_is_the_population_variance_times_the_width() -> None:
    values = rows(33, 7)
    assert torch.allclose(scaled_variance(values), 7 * values.var(0, correction=0), atol=1e-6)


def test_isotropic_rows_have_scaled_variance_one() -> None:
    assert torch.allclose(scaled_variance(rows(200_000, 8)), torch.ones(8), atol=0.02)


def test_variance_matching_of_equal_distributions_is_zero_and_else_the_formula() -> None:
    z, r = rows(64, 5), rows(64, 5, 1)
    assert variance_matching(z, z).item() == 0.0
    zn, rn = z.double().numpy(), r.double().numpy()
    expected = np.mean((5 * zn.var(0) - 5 * rn.var(0)) ** 2)
    assert variance_matching(z, r).item() == pytest.approx(expected, rel=1e-4)


def test_the_plain_squared_difference_would_be_inert_and_the_scaled_one_is_not() -> None:
    """The reason for the dimension-scaled form: at 768 dimensions the plain term is about 1e-6 or less."""
    z = unit(torch.randn(256, 768, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 2, 768))
    r = rows(256, 768, 1)
    plain = (z.var(0) - r.var(0)).square().mean().item()
    assert plain < 1e-5
    assert variance_matching(z, r).item() > 0.1


def test_the_objective_adds_the_weighted_term_of_the_fused_embedding() -> None:
    image, text, reference = rows(16, 6), rows(16, 6, 1), rows(16, 6, 2)
    parts = Objective(0.1, "both", 0.4)(image, text, reference, temperature=torch.tensor(0.2))
    pull = contrastive(image, text, temperature=0.2, label_smoothing=0.1)
    match = variance_matching(F.normalize((image + text) / 2, dim=1), reference)
    assert parts.total.item() == pytest.approx((pull + 0.4 * match).item(), rel=1e-6)
    off = Objective(0.1, "both", None)(image, text, reference, temperature=torch.tensor(0.2))
    assert off.total.item() == pytest.approx(pull.item(), rel=1e-6)
    assert off.variance.item() == 0.0


def test_the_aligned_embedding_is_the_unit_mean() -> None:
    image, text = rows(3, 4), rows(3, 4, 1)
    mean = (image + text) / 2
    assert torch.allclose(fuse(image, text), mean / mean.norm(dim=1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize(
    ("warmup", "total", "cycles"), [(0, 10, 0.5), (1, 10, 0.5), (4, 20, 0.5), (3, 21, 1.0)]
)
def test_the_learning_rate_warms_up_linearly_and_follows_a_cosine(
    warmup: int, total: int, cycles: float
) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    scheduler = warmup_cosine(
        optimizer, warmup_steps=warmup, total_steps=total, min_lr=0.01, num_cycles=cycles
    )
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    for step, lr in enumerate(seen):
        if step < warmup:
            expected = 0.1 * (step + 1) / warmup
        else:
            progress = (step - warmup) / (total - warmup)
            expected = 0.01 + 0.09 * 0.5 * (1 + math.cos(math.pi * 2 * cycles * progress))
        assert lr == pytest.approx(expected, rel=1e-6), step


def test_an_mlp_has_the_documents_layers() -> None:
    adapter = build_adapter("mlp", 512, 768, hidden_dims=(1024, 256), activation="gelu", dropout=0.2)
    names = [type(layer).__name__ for layer in adapter.layers]
    assert names == ["Linear", "GELU", "LayerNorm", "Dropout"] * 2 + ["Linear", "LayerNorm"]
    assert [(m.in_features, m.out_features) for m in adapter.layers if isinstance(m, torch.nn.Linear)] == [
        (512, 1024),
        (1024, 256),
        (256, 768),
    ]


def test_a_linear_adapter_is_a_projection_and_a_norm() -> None:
    names = [type(layer).__name__ for layer in build_adapter("linear", 4, 8).layers]
    assert names == ["Linear", "LayerNorm"]
    assert [type(m).__name__ for m in build_adapter("linear", 4, 8, layer_norm=False).layers] == ["Linear"]
    assert n_parameters(build_adapter("linear", 4, 8)) == 4 * 8 + 8 + 16


def test_checkpointing_changes_the_memory_and_not_the_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        adapter = build_adapter(
            "mlp", 6, 5, hidden_dims=(9,), dropout=0.3, gradient_checkpointing=checkpointing
        )
        torch.manual_seed(1)
        adapter(rows(11, 6)).square().sum().backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad.clone() for p in adapter.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_a_learned_temperature_is_held_in_bounds_and_a_fixed_one_is_exact() -> None:
    fixed = build_pair("linear", image_dim=2, text_dim=2, embed_dim=2, temperature=0.2)
    assert fixed.temperature.item() == pytest.approx(0.2)
    learned = build_pair(
        "linear", image_dim=2, text_dim=2, embed_dim=2, temperature=0.2, learn_temperature=True
    )
    with torch.no_grad():
        learned.log_temperature.fill_(-20.0)
    assert learned.temperature.item() == pytest.approx(0.01)
