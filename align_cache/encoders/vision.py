"""A frozen image model on its device: uint8 squares in, float32 features out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from align_cache.encoders.base import EncoderSpec
from align_cache.errors import ShapeError


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
        mean, std = _per_channel(spec.identity["mean"], device), _per_channel(spec.identity["std"], device)
        self._scale, self._offset = 1 / (255 * std), -mean / std
        self.dim = self.encode(torch.zeros(1, 3, self._crop, self._crop, dtype=torch.uint8)).shape[1]

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give features of one batch.

        Parameters
        ----------
        pixels : uint8 tensor, shape (n, 3, crop, crop)

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
        moved = pixels.to(self._device, non_blocking=True).float()
        # In float32 and rounded once: in bf16 the constants alone would be off by 0.2%. The layout changes
        # last, on the smallest type.
        scaled = torch.addcmul(self._offset, moved, self._scale).to(self._dtype)
        features: torch.Tensor = self._model(scaled.contiguous(memory_format=torch.channels_last))
        return features.float()


def freeze(model: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """Move a model, ready to evaluate: no gradients, its convolutions channels-last."""
    model.eval().requires_grad_(False)
    return model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)


def _per_channel(values: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device, dtype=torch.float32).view(1, 3, 1, 1)
