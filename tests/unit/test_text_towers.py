"""Text towers: padding, neighbours in the batch and unknown tokens change nothing that they should not."""

import pytest
import torch
from torch import Tensor

from align_cache.adapters import text_towers
from align_cache.adapters.text_towers import Lstm, Pooling, TextTower, TokenTable, TowerKind, build_tower

SEEN = torch.tensor([2, 3, 5, 7, 11, 13])
CAPTIONS = [[2, 3, 5, 7, 11, 13, 2], [5], [3, 3], [13, 2, 7], [7, 5, 3, 2, 11]]
POOLINGS: tuple[Pooling, ...] = ("last", "mean", "max")


def table(width: int = 4) -> TokenTable:
    torch.manual_seed(0)
    return TokenTable(SEEN, 20, width)


def tower(
    kind: TowerKind = "lstm", *, layers: int = 1, both: bool = False, pooling: Pooling = "last"
) -> TextTower:
    built = build_tower(
        kind, table(), hidden=6, layers=layers, bidirectional=both, pooling=pooling, dropout=0.5
    )
    return built.eval()


def padded(captions: list[list[int]], length: int) -> Tensor:
    return torch.tensor([caption + [0] * (length - len(caption)) for caption in captions])


def as_one_lstm(built: Lstm) -> dict[str, Tensor]:
    """The weights under the names that torch gives to those of one LSTM of several layers and directions."""
    weights = {}
    for suffix, layers in (("", built.forwards), ("_reverse", built.backwards)):
        for index, layer in enumerate(layers):
            for name, weight in layer.state_dict().items():
                weights[name.removesuffix("0") + str(index) + suffix] = weight
    return weights


def every_tower() -> list[TextTower]:
    lstms = [
        tower(layers=layers, both=both, pooling=pooling)
        for layers in (1, 2)
        for both in (False, True)
        for pooling in POOLINGS
    ]
    return [tower("bow"), *lstms]


def test_a_caption_is_what_torch_gives_for_it_alone_and_unpadded() -> None:
    for both in (False, True):
        for pooling in POOLINGS:
            built = tower(layers=2, both=both, pooling=pooling)
            assert isinstance(built, Lstm)
            rows = built(padded(CAPTIONS, 9))
            whole = torch.nn.LSTM(4, 6, 2, batch_first=True, bidirectional=both)
            whole.load_state_dict(as_one_lstm(built))
            for caption, row in zip(CAPTIONS, rows, strict=True):
                states, (last, _) = whole(built.table(torch.tensor([caption])))
                expected = {
                    "last": torch.cat(list(last[-1 - both :, 0])),
                    "mean": states[0].mean(0),
                    "max": states[0].amax(0),
                }[pooling]
                assert torch.allclose(row, expected, atol=1e-6)


def test_the_mean_of_tokens_is_a_plain_mean() -> None:
    built = tower("bow")
    for caption, row in zip(CAPTIONS, built(padded(CAPTIONS, 8)), strict=True):
        expected = torch.stack([built.table.weight[built.table.place[token]] for token in caption]).mean(0)
        assert torch.allclose(row, expected, atol=1e-6)


def test_padding_changes_nothing() -> None:
    for built in every_tower():
        short, long = built(padded(CAPTIONS, 7)), built(padded(CAPTIONS, 64))
        assert torch.equal(short, long)


def test_what_shares_the_batch_changes_nothing() -> None:
    for built in every_tower():
        together = built(padded(CAPTIONS, 7))
        for index, caption in enumerate(CAPTIONS):
            assert torch.allclose(built(padded([caption], 7))[0], together[index], atol=1e-6)
        order = torch.tensor([3, 0, 4, 1, 2])
        assert torch.allclose(built(padded(CAPTIONS, 7)[order]), together[order], atol=1e-6)


def test_buckets_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for built in every_tower():
        monkeypatch.setattr(text_towers, "_BUCKET_ROWS", 128)
        at_once = built(padded(CAPTIONS, 7))
        for rows in (1, 2, 3):
            monkeypatch.setattr(text_towers, "_BUCKET_ROWS", rows)
            assert torch.allclose(built(padded(CAPTIONS, 7)), at_once, atol=1e-6)


def test_the_gradient_knows_no_padding_either() -> None:
    for built in every_tower():
        gradients = []
        for length in (7, 30):
            built.zero_grad()
            built(padded(CAPTIONS, length)).square().sum().backward()  # type: ignore[no-untyped-call]
            gradients.append([parameter.grad.clone() for parameter in built.parameters()])  # type: ignore[union-attr]
        for short, long in zip(*gradients, strict=True):
            assert torch.allclose(short, long, atol=1e-6)
            assert short.abs().sum() > 0


def test_a_token_that_training_never_saw_counts_as_nothing() -> None:
    bow = tower("bow")
    with_unknown, without = bow(padded([[2, 4, 3], [2, 3]], 3))
    assert torch.equal(with_unknown, without)
    assert torch.equal(bow(padded([[4, 6]], 3)), torch.zeros(1, 4))
    assert torch.equal(table()(torch.tensor([4, 19, 0])), torch.zeros(3, 4))


def test_the_row_of_unknown_tokens_stays_zero_while_training() -> None:
    built = tower("bow").train()
    optimizer = torch.optim.AdamW(built.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        built(padded([[2, 4, 3], [4, 5]], 3)).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert torch.equal(built.table.weight[0], torch.zeros(4))
    assert not torch.equal(built.table.weight, table().weight)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_bfloat16_products_move_a_row_by_little(pooling: Pooling) -> None:
    built = tower(both=True, pooling=pooling)
    exact, rounded = built(padded(CAPTIONS, 7)), built(padded(CAPTIONS, 7), bf16=True)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert torch.nn.functional.cosine_similarity(exact, rounded).min() > 0.999


def test_dropout_is_of_training_alone_and_of_the_seed() -> None:
    for built in every_tower():
        built.train()
        drawn = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            drawn.append(built(padded(CAPTIONS, 7)))
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
