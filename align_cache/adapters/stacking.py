"""Several adapter pairs of one architecture as one, whose parameters have a leading run dimension.

One product of stacked matrices then serves all runs, which pays where a single run is bound by the launch
of its many small operations, as on a GPU. Each run's own pair keeps its parameters and gradients as views
into the stack, so that its optimiser, its clipping and its checkpoint are those of a run trained alone.
"""

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import nn

from align_cache.adapters.layers import Dropout

Module = TypeVar("Module", bound=nn.Module)
Values = TypeVar("Values")


def stack(modules: Sequence[Module], *, generators: Sequence[torch.Generator]) -> Module:
    """Make one module of several alike; it is their storage from then on.

    Parameters
    ----------
    modules : sequence of Module
        Equal in architecture, on one device. Their parameters, gradients and buffers become views of the
        stack's.
    generators : sequence of torch.Generator
        What each run's dropout draws from.

    Returns
    -------
    Module
        Takes rows (runs, n, dim) and gives rows (runs, n, dim). Its gradients are kept from step to step:
        set them to zero, not to None.
    """
    stacked = copy.deepcopy(modules[0])
    for place, *alike in zip(stacked.modules(), *(module.modules() for module in modules), strict=True):
        _stack_tensors(place, alike)
        if isinstance(place, Dropout):
            place.stack([own for own in alike if isinstance(own, Dropout)], generators)
    return stacked


def _stack_tensors(place: nn.Module, alike: Sequence[nn.Module]) -> None:
    """Stack what one layer holds itself, and let the runs' own layers look into it."""
    for name, buffer in place.named_buffers(recurse=False):
        if buffer is not None:
            held = torch.stack([module.get_buffer(name) for module in alike])
            setattr(place, name, held)
            for run, module in enumerate(alike):
                setattr(module, name, held[run])
    for name, _ in list(place.named_parameters(recurse=False)):
        own = [module.get_parameter(name) for module in alike]
        stacked = nn.Parameter(torch.stack([each.detach() for each in own]), own[0].requires_grad)
        if stacked.requires_grad:
            stacked.grad = torch.zeros_like(stacked)
        for run, each in enumerate(own):
            each.data = stacked.data[run]
            each.grad = None if stacked.grad is None else stacked.grad[run]
        setattr(place, name, stacked)


def stack_values(each: Sequence[Values], device: torch.device) -> Values:
    """Make one dataclass of several: its floats become tensors (runs, 1), the rest is that of the first."""
    first: Any = each[0]
    stacked = {
        field.name: torch.tensor([[getattr(one, field.name)] for one in each], device=device)
        for field in fields(first)
        if isinstance(getattr(first, field.name), float)
    }
    values: Values = replace(first, **stacked)
    return values
