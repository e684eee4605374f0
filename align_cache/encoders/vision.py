"""A frozen image model on its device: uint8 squares in, float32 features out."""

from __future__ import annotations

import torch

from align_cache.encoders.base import EncoderSpec
from align_cache.errors import ShapeError

_BLOCK = 16
"""Images normalised at a time."""


class FrozenImageEncoder:
    """Normalises on the device, runs the model in its own dtype, gives float32.

    Parameters
    ----------
    spec : EncoderSpec
        Of an image encoder; its identity holds ``mean`` and ``std`` of the 0 to 1 scale.
    model : torch.nn.Module
        Normalised pixels (n, 3, crop, crop) in, features (n, dim) out.
    device, dtype
        Where and in what the model computes.
    """

    def __init__(
        self, spec: EncoderSpec, model: torch.nn.Module, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        assert spec.preprocess is not None, "an image encoder's spec says how images are prepared"
        self.spec = spec
        self._model = freeze(model, device=device, dtype=dtype)
        self._device, self._dtype = device, dtype
        self._crop = spec.preprocess.crop
        mean, std = (torch.tensor(spec.identity[name], device=device) for name in ("mean", "std"))
        # For a row of pixels, whose channels lie side by side.
        self._scale, self._offset = (1 / (255 * std)).repeat(self._crop), (-mean / std).repeat(self._crop)
        self.dim = self.encode(torch.zeros(1, 3, self._crop, self._crop, dtype=torch.uint8)).shape[1]

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give features of one batch.

        Parameters
        ----------
        pixels : uint8 tensor, shape (n, 3, crop, crop)
            Taken as they are where they are channels-last; other layouts cost a copy.

        Returns
        -------
        float32 tensor, shape (n, dim), on the encoder's device, not normalised.

        Raises
        ------
        ShapeError
        """
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != (3, self._crop, self._crop):
            raise ShapeError(
                f"{self.spec.name} takes uint8 pixels (n, 3, {self._crop}, {self._crop}), "
                f"found {pixels.dtype} {tuple(pixels.shape)}"
            )
        features: torch.Tensor = self._model(self._normalised(pixels.to(self._device, non_blocking=True)))
        return features.float()

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale to what the model was trained on, channels-last, in its dtype.

        In float32 and rounded once: in bf16 the constants alone would be off by 0.2%. In blocks that stay in
        the processor's cache, over rows of pixels: a quarter of the time of the same over (n, 3, crop, crop).
        """
        rows = pixels.permute(0, 2, 3, 1).reshape(-1, 3 * self._crop)
        scaled = torch.empty(rows.shape, dtype=self._dtype, device=self._device)
        for start in range(0, len(rows), _BLOCK * self._crop):
            block = slice(start, start + _BLOCK * self._crop)
            levels = rows[block].float()
            scaled[block] = torch.addcmul(self._offset, levels, self._scale, out=levels)
        return scaled.view(-1, self._crop, self._crop, 3).permute(0, 3, 1, 2)


def freeze(model: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """Move a model, ready to evaluate: no gradients, its convolutions channels-last."""
    model.eval().requires_grad_(False)
    return model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
