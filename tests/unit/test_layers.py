"""Layers: each the one of torch, alone and for several runs at once, in float32 and bfloat16."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_cache.adapters.attention import MeanOfTokens, SelfAttention, Tokens
from align_cache.adapters.layers import Dropout, LayerNorm, Linear, Residual, RMSNorm, Standardize
from align_cache.adapters.stacking import stack

RUNS = 3
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-6}
"""A bfloat16 result is rounded to 2⁻⁸, and a layer rounds two or three times on the way."""

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: Linear(12, 5),
    "layer_norm": lambda: LayerNorm(12),
    "rms_norm": lambda: RMSNorm(12),
    "standardize": lambda: Standardize(12),
    "residual": lambda: Residual(RMSNorm(12), Linear(12, 7), nn.GELU(), Linear(7, 12)),
    "tokens": lambda: Tokens(3),
    "mean_of_tokens": lambda: MeanOfTokens(3),
    "self_attention": lambda: SelfAttention(12, tokens=3, heads=2),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_drawn_weights(layer: nn.Module, seed: int) -> nn.Module:
    """Fill what a layer holds with numbers that are neither zero nor one, deviations above zero."""
    for i, tensor in enumerate([*layer.parameters(), *layer.buffers()]):
        tensor.data = (drawn(*tensor.shape, seed=100 * seed + i) * 0.3).abs() + 0.4
    return layer.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [3, 15])
@pytest.mark.parametrize("name", LAYERS)
def test_runs_that_share_a_layer_get_what_each_alone_would(name: str, n: int, dtype: torch.dtype) -> None:
    layers = [with_drawn_weights(LAYERS[name](), seed) for seed in range(RUNS)]
    rows = drawn(RUNS, n, 12, seed=7).to(dtype)
    alone = torch.stack([layer(own) for layer, own in zip(layers, rows, strict=True)])
    together = stack(layers, generators=[torch.Generator() for _ in layers])(rows)
    assert together.dtype == alone.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_takes_no_rows(name: str) -> None:
    layer = LAYERS[name]()
    out = layer(torch.empty(0, 12))
    assert out.shape == (0, layer(drawn(3, 12)).shape[1])


def test_dropout_draws_the_same_alone_and_among_others() -> None:
    layers = [Dropout(rate) for rate in (0.0, 0.3, 0.6)]
    rows = drawn(RUNS, 9, 11)
    alone = []
    for seed, (layer, own) in enumerate(zip(layers, rows, strict=True)):
        torch.manual_seed(seed)
        alone.append(layer(own))
    generators = [torch.Generator().manual_seed(seed) for seed in range(RUNS)]
    together = stack(layers, generators=generators)(rows)
    assert torch.equal(together[0], rows[0])
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-6, atol=0)


def test_dropout_keeps_the_share_it_says_and_the_mean() -> None:
    torch.manual_seed(0)
    kept = Dropout(0.2)(torch.ones(1000, 101))
    assert (kept == 0).float().mean().item() == pytest.approx(0.2, abs=0.005)
    assert kept.mean().item() == pytest.approx(1.0, abs=0.01)
    assert kept.max().item() == pytest.approx(1 / 0.8, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rms_norm_is_the_written_out_formula(dtype: torch.dtype) -> None:
    layer = RMSNorm(12)
    with_drawn_weights(layer, 1)
    rows = drawn(5, 12).to(dtype)
    exact = rows.double()
    expected = exact / (exact.square().mean(1, keepdim=True) + 1e-5).sqrt() * layer.weight.double()
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(layer(rows).double(), expected, rtol=tolerance, atol=tolerance)


def test_standardize_gives_training_rows_mean_zero_and_deviation_one() -> None:
    rows = drawn(1000, 4) * torch.tensor([1e-3, 1.0, 50.0, 0.0]) + torch.tensor([0.5, -3.0, 1e3, 0.7])
    layer = Standardize(4)
    layer.observe([rows[:333], rows[333:334], rows[334:]])
    scaled = layer(rows)
    assert torch.allclose(scaled.mean(0), torch.zeros(4), atol=1e-3)
    assert torch.allclose(scaled[:, :3].std(0, correction=0), torch.ones(3), rtol=1e-3)
    assert torch.equal(scaled[:, 3], torch.zeros(1000))  # a component that never changes
    assert layer.state_dict().keys() == {"mean", "deviation"}
    assert not list(layer.parameters())


def test_attention_is_torchs_own_and_stays_within_a_vector() -> None:
    layer = SelfAttention(12, tokens=3, heads=2)
    with_drawn_weights(layer, 2)
    rival = nn.MultiheadAttention(12, 2, batch_first=True)
    rival.load_state_dict(
        {
            "in_proj_weight": layer.queries_keys_values.weight,
            "in_proj_bias": layer.queries_keys_values.bias,
            "out_proj.weight": layer.output.weight,
            "out_proj.bias": layer.output.bias,
        }
    )
    vectors = drawn(5, 3, 12)
    expected, _ = rival(vectors, vectors, vectors, need_weights=False)
    assert torch.allclose(layer(vectors.reshape(15, 12)).reshape(5, 3, 12), expected, atol=1e-6)


def test_tokens_are_consecutive_components_and_their_mean_undoes_repeating() -> None:
    rows = drawn(2, 6)
    tokens = Tokens(3)(rows)
    assert torch.equal(tokens, rows.reshape(6, 2))
    repeated = rows.repeat_interleave(3, dim=0)
    assert torch.allclose(MeanOfTokens(3)(repeated), rows)


def test_a_residual_layer_adds_to_its_rows() -> None:
    inner = Linear(4, 4)
    rows = drawn(3, 4)
    assert torch.allclose(Residual(inner)(rows), rows + F.linear(rows, inner.weight, inner.bias), atol=1e-6)
