"""The training step recorded once as a CUDA graph and replayed: one launch in place of hundreds.

What is recorded reads its batch from fixed places, takes learning rates from tensors and waits for nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.optim import Optimizer

from align_cache.pairing.embedding import Batch

_EAGER_STEPS = 3
"""Steps of each shape that are taken as they are before one is recorded: optimisers and libraries set
themselves up in them, which must not be recorded."""


@dataclass(slots=True)
class _Recorded:
    batch: Batch
    graph: torch.cuda.CUDAGraph
    measured: Tensor


class CapturedStep:
    """Takes steps like the function it is given; not for the optimiser's moving averages, which synchronise.

    Parameters
    ----------
    update : callable (Batch) -> tensor
        One whole step on the device.
    optimizers : sequence of AdamW
        Made ready to be recorded: their rates become tensors on the device.
    generators : sequence of torch.Generator
        What the step draws from beside the default generator.
    """

    def __init__(
        self,
        update: Callable[[Batch], Tensor],
        optimizers: Sequence[Optimizer],
        generators: Sequence[torch.Generator],
    ) -> None:
        self._update, self._generators = update, generators
        self._taken: dict[tuple[int, ...], int] = {}
        self._recorded: dict[tuple[int, ...], _Recorded] = {}
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch declares no types here
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)
                group["capturable"] = True

    def __call__(self, batch: Batch) -> Tensor:
        """Take a step; return what ``update`` does."""
        shape = tuple(batch.image.shape)
        if self._taken.setdefault(shape, 0) < _EAGER_STEPS:
            self._taken[shape] += 1
            return self._eagerly(batch)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(batch)
        recorded = self._recorded[shape]
        for field in fields(Batch):
            place, value = getattr(recorded.batch, field.name), getattr(batch, field.name)
            if isinstance(place, Tensor):
                place.copy_(value)
        recorded.graph.replay()
        return recorded.measured.clone()

    def _eagerly(self, batch: Batch) -> Tensor:
        """Take the step on the stream that the recording will use."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            measured = self._update(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return measured

    def _record(self, batch: Batch) -> _Recorded:
        """Record a step on copies of a batch; nothing is computed yet."""
        copied = Batch(
            batch.image.clone(),
            batch.text.clone(),
            None if batch.reference is None else batch.reference.clone(),
            batch.batch_size,
        )
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self._stream):
            measured = self._update(copied)
        return _Recorded(copied, graph, measured)
