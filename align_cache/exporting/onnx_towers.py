"""Text towers in the form that an ONNX graph can hold: all captions at once, whatever their lengths."""

import torch
from torch import Tensor, nn

from align_cache.adapters.text_towers import BagOfTokens, Lstm, TextTower
from align_cache.store.layout import PAD_ID


def graph_tower(tower: TextTower) -> nn.Module:
    """Return a module of ids (n, length) that can be exported, and means the tower in evaluation mode."""
    return BagGraph(tower) if isinstance(tower, BagOfTokens) else LstmGraph(tower)


class BagGraph(nn.Module):
    """The mean of the known tokens' vectors as a sum over a count; torch's own operator would be a loop."""

    def __init__(self, tower: BagOfTokens) -> None:
        super().__init__()
        self.table = tower.table

    def forward(self, ids: Tensor) -> Tensor:
        """Give float32 rows (n, width) of ids (n, length); zero where no token is known."""
        known = (self.table.place[ids] != 0).sum(1, keepdim=True)
        vectors: Tensor = self.table(ids).sum(1)  # those of unknown tokens are zero
        return vectors / known.clamp(min=1)


class LstmGraph(nn.Module):
    """An LSTM by ONNX's own operator, which is told each caption's length and reads from both ends itself.

    torch would export its own as a loop over time. Outside of an export this one computes nothing.
    """

    def __init__(self, tower: Lstm) -> None:
        super().__init__()
        self.table, self.pooling = tower.table, tower.pooling
        directions = [tower.forwards, tower.backwards] if tower.backwards else [tower.forwards]
        self.layers = nn.ModuleList(map(_Layer, zip(*directions, strict=True)))

    def forward(self, ids: Tensor) -> Tensor:
        """Give float32 rows (n, width) of ids (n, length), none of them empty."""
        lengths = (ids != PAD_ID).sum(1)
        states: Tensor = self.table(ids).transpose(0, 1)  # (length, n, components): time first
        ends = states[0]  # there is at least one layer
        for layer in self.layers:
            states, ends = layer(states, lengths)
        return ends if self.pooling == "last" else self._over_time(states, lengths)

    def _over_time(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Pool states (length, n, width), which are zero after a caption's end."""
        if self.pooling == "mean":
            return states.sum(0) / lengths[:, None]
        padding = torch.arange(states.shape[0], device=states.device)[:, None] >= lengths
        return states.masked_fill(padding[:, :, None], -1.0).amax(0)  # a state is in (-1, 1)


class _Layer(nn.Module):
    """One layer that reads forwards, or in both directions."""

    of_input: Tensor
    of_state: Tensor
    bias: Tensor

    def __init__(self, directions: tuple[nn.LSTM, ...]) -> None:
        super().__init__()
        self.hidden, self.directions = directions[0].hidden_size, len(directions)
        weights = [[_onnx_order(weight) for weight in way.all_weights[0]] for way in directions]
        self.register_buffer("of_input", torch.stack([of_input for of_input, *_ in weights]))
        self.register_buffer("of_state", torch.stack([of_state for _, of_state, *_ in weights]))
        self.register_buffer("bias", torch.stack([torch.cat(biases) for _, _, *biases in weights]))

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Give the states (length, n, width), zero after a caption's end, and the last ones (n, width)."""
        length, n, _ = states.shape
        every, last = torch.onnx.ops.symbolic_multi_out(
            "::LSTM",
            (states, self.of_input, self.of_state, self.bias, lengths.int()),
            {"hidden_size": self.hidden, "direction": "bidirectional" if self.directions == 2 else "forward"},
            dtypes=(states.dtype, states.dtype),
            shapes=((length, self.directions, n, self.hidden), (self.directions, n, self.hidden)),
        )
        width = self.directions * self.hidden
        return every.transpose(1, 2).reshape(length, n, width), last.transpose(0, 1).reshape(n, width)


def _onnx_order(weight: Tensor) -> Tensor:
    """Bring torch's gates (input, forget, cell, output) into ONNX's order (input, output, forget, cell)."""
    entry, forget, cell, output = weight.detach().chunk(4)
    return torch.cat([entry, output, forget, cell])
