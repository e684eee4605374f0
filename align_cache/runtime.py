"""The machine: device, precision, threads, memory, and what is recorded of them.

Nothing here imports torch at module level; :func:`prepare_environment` must run before the first import.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias

from align_cache._version import __version__
from align_cache.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]

_RECORDED_PACKAGES = ("torch", "torchvision", "transformers", "timm", "tokenizers", "numpy", "h5py", "pillow")


def prepare_environment() -> None:
    """Set what has to be set before torch is imported; what the user set stays.

    Idle OpenMP threads spin by default and take the core that another process needs, which slows both
    several times over.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def require_extra(package: str, *, extra: str, needed_for: str) -> None:
    """Refuse, before any work is done, what needs an optional package that is not installed.

    Parameters
    ----------
    package : str
        As it is imported.
    extra : str
        Of align-cache, that brings it.
    needed_for : str
        What the user asked for, as the user wrote it: ``--to onnx``.

    Raises
    ------
    UsageError
    """
    if find_spec(package) is None:
        raise UsageError(f"{needed_for} needs {package}, which is not installed",
                         hint=f"pip install 'align-cache[{extra}]'")  # fmt: skip


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(name: str, *, local_rank: int | None = None) -> torch.device:
    """Return the device asked for, or refuse: a missing GPU is never replaced by the CPU in silence.

    Of the processes that share a machine each takes the GPU of its ``local_rank``, around and around; None:
    the current one.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise UsageError(f"device {name} was asked for and torch {torch.__version__} sees none here",
                         hint="use --device auto or --device cpu")  # fmt: skip
    if name == "cuda" and local_rank is not None:
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device(name)


def torch_dtype(precision: Precision) -> torch.dtype:
    """Return the torch dtype of a precision name."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def resolve_precision(name: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """Return the number format of matrix products: what was asked for; ``auto`` is bf16 where it is fast."""
    if name == "auto":
        return "bf16" if fast_bf16(device) else "fp32"
    return name


def fast_bf16(device: torch.device) -> bool:
    """Tell whether bf16 products are faster than fp32 ones there, and not emulated."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Keep what the C library's allocator frees while the block runs, where that is glibc's.

    A training step frees and asks for the same megabytes again and again. By default glibc hands them back
    to the system in between and gets them zeroed, page by page, which costs a sixth of a step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    trim_threshold, mmap_threshold, largest = -1, -3, 32 << 20  # malloc.h; glibc takes no larger threshold
    mallopt(mmap_threshold, largest)
    mallopt(trim_threshold, 1 << 30)
    try:
        yield
    finally:
        mallopt(trim_threshold, 2 * largest)  # where glibc's own adjustment ends
        ctypes.CDLL(None).malloc_trim(0)


def memory_bytes() -> int:
    """Return the memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_memory_bytes() -> int:
    """Return the largest resident size this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def provenance() -> dict[str, object]:
    """Return what is recorded beside a result and never decides it: versions, platform, processor count."""
    return {
        "align_cache": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": {name: version for name in _RECORDED_PACKAGES if (version := _version(name))},
    }


def now() -> str:
    """Return the time as records carry it: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
