"""What there is to compute with: processors, memory, fast number formats, GPUs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from align_cache.diagnosis.problems import Problem
from align_cache.runtime import fast_bf16, memory_bytes, processors, resolve_device

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_BF16_UNITS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU."""

    kind: str
    """``cuda`` or ``mps``, as ``--device`` takes it."""
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use."""

    platform: str
    processors: int
    threads: int
    """Of one matrix product on the CPU."""
    memory_bytes: int
    device: str
    """What ``--device auto`` means here."""
    fast_bf16: bool
    """Whether bfloat16 products are fast there, so that ``precision = "auto"`` takes them."""
    cpu_units: tuple[str, ...]
    """Which units of the CPU make bfloat16 products fast."""
    accelerators: tuple[Accelerator, ...]


def this_machine() -> Machine:
    """Look at the machine through torch, which is imported; nothing is computed.

    Raises
    ------
    ImportError, OSError
        If torch cannot be imported.
    """
    import torch

    device = resolve_device("auto")
    capabilities = torch.cpu.get_capabilities()
    return Machine(
        platform=platform.platform(),
        processors=processors(),
        threads=torch.get_num_threads(),
        memory_bytes=memory_bytes(),
        device=device.type,
        fast_bf16=fast_bf16(device),
        cpu_units=tuple(unit for unit in _BF16_UNITS if capabilities.get(unit)),
        accelerators=tuple(_accelerators()),
    )


def machine_problems(machine: Machine) -> Iterator[Problem]:
    """Say where there is a GPU that torch does not see."""
    import torch

    if not _NVIDIA_DRIVER.exists() or any(each.kind == "cuda" for each in machine.accelerators):
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        reason, mend = (
            "was built without CUDA",
            "install one with CUDA: https://pytorch.org/get-started/locally",
        )
    elif hidden is not None:
        reason = f"is shown CUDA_VISIBLE_DEVICES={hidden!r}"
        mend = "unset CUDA_VISIBLE_DEVICES"
    else:
        reason = f"was built for CUDA {torch.version.cuda}"
        mend = "install one for the CUDA that nvidia-smi names: https://pytorch.org/get-started/locally"
    yield Problem(
        f"an NVIDIA driver is here and torch {torch.__version__} sees no GPU: it {reason}", mend, broken=False
    )


def _accelerators() -> Iterator[Accelerator]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            yield Accelerator("cuda", found.name, found.total_memory)
    if torch.backends.mps.is_available():
        yield Accelerator("mps", platform.processor(), torch.mps.recommended_max_memory())
