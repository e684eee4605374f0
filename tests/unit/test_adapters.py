"""Adapters: each architecture against a plain rebuild of torch layers, and the pair that they make."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, get_args, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_cache.adapters.architectures import ARCHITECTURES, Kind
from align_cache.adapters.pair import Adapter, build_adapter, build_pair, fuse, n_parameters, unit
from align_cache.adapters.stacking import stack
from align_cache.settings import AdapterType, ClosedForm

KINDS: tuple[Kind, ...] = ("linear", "mlp", "residual", "attention")
SMALL: dict[str, Any] = {
    "hidden_dims": (9, 7),
    "attention_tokens": 3,
    "attention_width": 8,
    "attention_heads": 2,
}


def rows(n: int, dim: int, seed: int = 0) -> Tensor:
    return unit(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)))


def with_drawn_weights(adapter: Adapter) -> Adapter:
    """Move gains off one and shifts off zero, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(3)
    for parameter in adapter.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return adapter


def rebuilt_linear(weights: list[Tensor], features: Tensor) -> Tensor:
    w, b, gain, shift = weights
    return F.layer_norm(F.linear(features, w, b), (5,), gain, shift)


def rebuilt_mlp(weights: list[Tensor], x: Tensor) -> Tensor:
    for width, (w, b, gain, shift) in zip((9, 7), (weights[:4], weights[4:8]), strict=True):
        x = F.layer_norm(F.gelu(F.linear(x, w, b)), (width,), gain, shift)
    return rebuilt_linear(weights[8:], x)


def rebuilt_residual(weights: list[Tensor], features: Tensor) -> Tensor:
    w, b, *blocks, last_gain, last_shift = weights
    x = F.linear(features, w, b)
    for gain, shift, w1, b1, w2, b2 in (blocks[:6], blocks[6:]):
        x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (5,), gain, shift), w1, b1)), w2, b2)
    return F.layer_norm(x, (5,), last_gain, last_shift)


def rebuilt_attention(weights: list[Tensor], features: Tensor) -> Tensor:
    w, b, *layers = weights[:26]
    x = F.linear(features, w, b).reshape(len(features), 3, 8)
    for own in (layers[:12], layers[12:]):
        gain, shift, w_qkv, b_qkv, w_out, b_out, gain2, shift2, w1, b1, w2, b2 = own
        q, k, v = F.linear(F.layer_norm(x, (8,), gain, shift), w_qkv, b_qkv).chunk(3, dim=-1)
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            attention = (q[..., head] @ k[..., head].mT / 2).softmax(-1)  # 2 is the root of a head's width
            heads.append(attention @ v[..., head])
        x = x + F.linear(torch.cat(heads, -1), w_out, b_out)
        x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (8,), gain2, shift2), w1, b1)), w2, b2)
    gain, shift, *last = weights[26:]
    return rebuilt_linear(last, F.layer_norm(x, (8,), gain, shift).mean(1))


REBUILT: dict[Kind, Callable[[list[Tensor], Tensor], Tensor]] = {
    "linear": rebuilt_linear,
    "mlp": rebuilt_mlp,
    "residual": rebuilt_residual,
    "attention": rebuilt_attention,
}


@pytest.mark.parametrize("n", [0, 1, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_an_architecture_is_its_written_out_mathematics(kind: Kind, n: int) -> None:
    adapter = with_drawn_weights(build_adapter(kind, 6, 5, dropout=0.3, **SMALL)).eval()
    expected = REBUILT[kind](list(adapter.parameters()), rows(n, 6))
    assert expected.shape == (n, 5)
    assert torch.allclose(adapter(rows(n, 6)), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_stacked_heads_give_what_each_alone_gives_and_its_gradient(kind: Kind, dtype: torch.dtype) -> None:
    heads = [build_adapter(kind, 6, 5, norm="rms", input_norm="standardize", **SMALL) for _ in range(3)]
    features = torch.stack([rows(11, 6, seed) for seed in range(3)])
    for head, own in zip(heads, features, strict=True):
        head.observe(partial(iter, [own]))
    alone = copy.deepcopy(heads)
    stacked = stack(heads, generators=[torch.Generator() for _ in heads])
    together = stacked(features.to(dtype))
    separate = torch.stack([head(own.to(dtype)) for head, own in zip(alone, features, strict=True)])
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(together, separate, rtol=0, atol=tolerance)
    for out in (together, separate):
        out.float().square().sum((1, 2)).sum().backward()
    if dtype == torch.float32:
        for head, own in zip(heads, alone, strict=True):
            for ours, theirs in zip(head.parameters(), own.parameters(), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_learns_a_map_that_it_can_hold(kind: Kind) -> None:
    torch.manual_seed(0)
    features = rows(256, 6)
    target = unit(features @ torch.randn(6, 5))
    # No LayerNorm at the end: of five components it would take one away.
    adapter = build_adapter(kind, 6, 5, norm="rms", **{**SMALL, "hidden_dims": (32, 32)})
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    with torch.no_grad():
        before = (unit(adapter(features)) * target).sum(1).mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        (-(unit(adapter(features)) * target).sum(1).mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        after = (unit(adapter(features)) * target).sum(1).mean().item()
    assert before < 0.5
    assert after > 0.95


def test_an_mlp_has_the_documents_layers() -> None:
    adapter = build_adapter("mlp", 512, 768, hidden_dims=(1024, 256), activation="gelu", dropout=0.2)
    names = [type(layer).__name__ for layer in adapter.layers]
    assert names == ["Linear", "GELU", "LayerNorm", "Dropout"] * 2 + ["Linear", "LayerNorm"]
    assert [(m.in_features, m.out_features) for m in adapter.layers if isinstance(m, nn.Linear)] == [
        (512, 1024),
        (1024, 256),
        (256, 768),
    ]


def test_a_linear_adapter_is_a_projection_and_a_norm() -> None:
    names = [type(layer).__name__ for layer in build_adapter("linear", 4, 8).layers]
    assert names == ["Dropout", "Linear", "LayerNorm"]
    plain = build_adapter("linear", 4, 8, norm=None)
    assert [type(layer).__name__ for layer in plain.layers] == ["Dropout", "Linear"]
    assert n_parameters(build_adapter("linear", 4, 8)) == 4 * 8 + 8 + 16


@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_is_chosen_for_every_place_it_stands_at(kind: Kind) -> None:
    def norms(**choice: Any) -> set[str]:
        modules = build_adapter(kind, 6, 5, **SMALL, **choice).modules()
        return {type(m).__name__ for m in modules} & {"LayerNorm", "RMSNorm", "Standardize"}

    assert norms() == {"LayerNorm"}
    assert norms(norm="rms") == {"RMSNorm"}
    assert norms(norm=None) == set()
    assert norms(norm=None, input_norm="standardize") == {"Standardize"}
    assert norms(norm="rms", input_norm="layer") == {"RMSNorm", "LayerNorm"}


def test_a_head_that_does_not_standardise_does_not_read_the_features() -> None:
    def unread() -> list[Tensor]:
        raise AssertionError("read")

    build_adapter("linear", 6, 5, input_norm="layer").observe(unread)
    with pytest.raises(AssertionError, match="read"):
        build_adapter("linear", 6, 5, input_norm="standardize").observe(unread)


def test_what_was_observed_is_saved_with_the_weights() -> None:
    seen = build_adapter("linear", 6, 5, input_norm="standardize").eval()
    seen.observe(lambda: [rows(20, 6) + 3])
    fresh = build_adapter("linear", 6, 5, input_norm="standardize").eval()
    fresh.load_state_dict(seen.state_dict())
    assert torch.equal(fresh(rows(4, 6, 1)), seen(rows(4, 6, 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_changes_the_memory_and_not_the_gradient(kind: Kind) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        adapter = build_adapter(kind, 6, 5, dropout=0.3, gradient_checkpointing=checkpointing, **SMALL)
        torch.manual_seed(1)
        adapter(rows(11, 6)).square().sum().backward()
        gradients.append([p.grad.clone() for p in adapter.parameters() if p.grad is not None])
    assert gradients[0]
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


def test_the_aligned_embedding_is_the_unit_mean() -> None:
    image, text = rows(3, 4), rows(3, 4, 1)
    mean = (image + text) / 2
    assert torch.allclose(fuse(image, text), mean / mean.norm(dim=1, keepdim=True), atol=1e-6)


def test_settings_and_command_line_know_every_architecture_and_closed_form() -> None:
    from align_cache.cli.runs import fit

    assert set(get_args(AdapterType)) == set(ARCHITECTURES) | set(get_args(ClosedForm))
    option, absent = get_args(get_type_hints(fit)["adapter"])
    assert get_args(option) == get_args(AdapterType)
    assert absent is type(None)
