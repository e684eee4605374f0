"""Text towers that are trained from scratch: the token ids of a caption to one vector.

``lstm`` is the second document's; ``bow``, the mean of trained token embeddings, is what it has to beat. A
tower stands before a head like any other, and is trained with it.
"""

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_cache.adapters.layers import Dropout
from align_cache.store.layout import PAD_ID

TowerKind: TypeAlias = Literal["lstm", "bow"]
Pooling: TypeAlias = Literal["last", "mean", "max"]

_BUCKET_ROWS = 128
"""Captions of like length that are computed together; fewer would leave the processor idle."""


class TokenTable(nn.Module):
    """A trained vector for every token that the training captions hold.

    Any other token counts as nothing: its vector is zero and stays so. A vocabulary of 30,000 words of which
    a small dataset uses 5,000 then costs what 5,000 cost.

    Parameters
    ----------
    seen : int64 tensor, shape (tokens,)
        Ids of the training captions, each once, without the padding.
    vocabulary_size : int
        Ids are below it.
    width : int
        Components of a vector.
    """

    place: Tensor

    def __init__(self, seen: Tensor, vocabulary_size: int, width: int) -> None:
        super().__init__()
        place = torch.zeros(vocabulary_size, dtype=torch.int64)
        place[seen] = torch.arange(1, len(seen) + 1)
        self.register_buffer("place", place)
        """Row of the table for each id; row 0 is zero."""
        self.weight = nn.Parameter(torch.randn(len(seen) + 1, width) * width**-0.5)
        with torch.no_grad():
            self.weight[0] = 0.0

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids (…): (…, width)."""
        return F.embedding(self.place[ids], self.weight, padding_idx=0)

    def mean(self, ids: Tensor) -> Tensor:
        """Mean the vectors of each row's known tokens, ids (n, length): (n, width); zero where none is."""
        return F.embedding_bag(self.place[ids], self.weight, mode="mean", padding_idx=0)


class BagOfTokens(nn.Module):
    """Mean of the token vectors: a caption without its order."""

    def __init__(self, table: TokenTable, *, dropout: float) -> None:
        super().__init__()
        self.table, self.dropout = table, Dropout(dropout)
        self.width = table.weight.shape[1]

    def forward(self, ids: Tensor, *, bf16: bool = False) -> Tensor:
        """Give float32 rows (n, width) of ids (n, length); a mean has no products for bf16 to speed up."""
        del bf16
        rows: Tensor = self.dropout(self.table.mean(ids))
        return rows


class Lstm(nn.Module):
    """A recurrent network over the tokens, in which padding changes nothing, in either direction.

    Captions are computed in buckets of like length, each padded to its own longest. What stands after a
    caption's last token is read by nobody: a network that reads forwards has passed the caption by then, and
    one that reads backwards is given the caption reversed in its place.

    Parameters
    ----------
    hidden : int
        Width of the state; the output is twice as wide where ``bidirectional``.
    layers : int
    pooling : {"last", "mean", "max"}
        Over time: the state after the last token (of either direction), or the mean or the largest of all.
    dropout : float
        On the token vectors, and between layers.
    """

    def __init__(
        self,
        table: TokenTable,
        *,
        hidden: int,
        layers: int,
        bidirectional: bool,
        pooling: Pooling,
        dropout: float,
    ) -> None:
        super().__init__()
        self.table, self.dropout, self.pooling = table, Dropout(dropout), pooling
        self.width = hidden * (1 + bidirectional)
        widths = [table.weight.shape[1], *[self.width] * (layers - 1)]
        self.forwards = nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for width in widths)
        reading_back = widths if bidirectional else []
        self.backwards = nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for width in reading_back)

    def forward(self, ids: Tensor, *, bf16: bool = False) -> Tensor:
        """Give float32 rows (n, width) of ids (n, length), none of them empty; products in bf16 or not."""
        lengths = (ids != PAD_ID).sum(1)
        order = lengths.argsort(stable=True)
        rows = []
        for start in range(0, len(order), _BUCKET_ROWS):
            bucket = order[start : start + _BUCKET_ROWS]
            longest = int(lengths[bucket[-1]])
            rows.append(self._embed(ids[bucket, :longest], lengths[bucket], bf16=bf16))
        return torch.cat(rows)[order.argsort()]

    def _embed(self, ids: Tensor, lengths: Tensor, *, bf16: bool) -> Tensor:
        """Embed captions (n, length) of one bucket."""
        time = torch.arange(ids.shape[1], device=ids.device)
        real = time < lengths[:, None]  # (n, length)
        reverse = torch.where(real, lengths[:, None] - 1 - time, time)[:, :, None]
        states: Tensor = self.table(ids)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=bf16):
            for layer, reads_forwards in enumerate(self.forwards):
                states = self.dropout(states)
                both = [reads_forwards(states)[0]]
                if self.backwards:
                    mirrored = states.gather(1, reverse.expand_as(states))
                    back = self.backwards[layer](mirrored)[0]
                    both.append(back.gather(1, reverse.expand_as(back)))
                states = torch.cat(both, -1)
        return self._over_time(states.float(), real, lengths)

    def _over_time(self, states: Tensor, real: Tensor, lengths: Tensor) -> Tensor:
        """Pool states (n, length, width) over the tokens that are ``real`` (n, length)."""
        if self.pooling == "mean":
            return (states * real[:, :, None]).sum(1) / lengths[:, None]
        if self.pooling == "max":
            return states.masked_fill(~real[:, :, None], -1.0).amax(1)  # a state is in (-1, 1)
        ends = states[torch.arange(len(states), device=states.device), lengths - 1]
        if not self.backwards:
            return ends
        half = self.width // 2
        return torch.cat([ends[:, :half], states[:, 0, half:]], -1)  # read backwards, the first is the last


TextTower: TypeAlias = BagOfTokens | Lstm


def build_tower(
    kind: TowerKind,
    table: TokenTable,
    *,
    hidden: int,
    layers: int,
    bidirectional: bool,
    pooling: Pooling,
    dropout: float,
) -> TextTower:
    """Make a tower; its weights come from torch's global generator. ``bow`` takes ``dropout`` alone."""
    if kind == "bow":
        return BagOfTokens(table, dropout=dropout)
    return Lstm(
        table,
        hidden=hidden,
        layers=layers,
        bidirectional=bidirectional,
        pooling=pooling,
        dropout=dropout,
    )
