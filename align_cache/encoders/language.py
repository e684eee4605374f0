"""A frozen text model on its device: captions in, float32 features out, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from align_cache.encoders.base import EncoderSpec
from align_cache.encoders.tokenizer import Tokenizer
from align_cache.encoders.vision import freeze


class FrozenTextEncoder:
    """Sorts texts by length, pads each batch to its longest, and puts the features back in order.

    Three quarters of the tokens are padding where every caption is padded to 64; sorted by length, few are.

    Parameters
    ----------
    spec : EncoderSpec
        Of a text encoder.
    model : callable
        Token ids and mask, both int64 (n, length), in; features (n, dim) out.
    tokenizer : Tokenizer
    pad_id : int
        The id that fills a row up; the mask is 0 there.
    device, dtype
        Where and in what the model computes.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        model: torch.nn.Module,
        *,
        tokenizer: Tokenizer,
        pad_id: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.spec = spec
        self._model = freeze(model, device=device, dtype=dtype)
        self._tokenizer, self._pad_id, self._device = tokenizer, pad_id, device
        self.dim = self._forward(tokenizer.encode([""])[0]).shape[1]

    @torch.inference_mode()
    def encode(
        self, texts: Sequence[str], *, batch_size: int, on_batch: Callable[[int], None] | None = None
    ) -> tuple[torch.Tensor, int]:
        """Give features of captions.

        Parameters
        ----------
        texts : sequence of str
            An empty one is a text of special tokens only.
        batch_size : int
            Texts computed together; decides the last bits of the features, so it belongs to the identity.
        on_batch : callable, optional
            Told how many texts are done, after each batch.

        Returns
        -------
        (float32 tensor, shape (n, dim), on the CPU and not normalised; int, the texts that were cut)
        """
        rows, truncated = self._tokenizer.encode(texts)
        # The longest first: what does not fit into memory fails at once. Ties by index: the order is fixed.
        order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]), index))
        features = torch.empty(len(rows), self.dim, device=self._device)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            features[chosen] = self._forward([rows[index] for index in chosen])
            if on_batch is not None:
                on_batch(start + len(chosen))
        return features.cpu(), truncated

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]]) -> torch.Tensor:
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self._pad_id] * (longest - len(row)) for row in rows])
        mask = (torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]).long()
        features: torch.Tensor = self._model(ids.to(self._device), mask.to(self._device))
        return features.float()
