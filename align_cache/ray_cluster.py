"""A Ray cluster: joining it, what one piece of work gets of it, and what its errors mean.

Every node is expected to have this package and to see the cache, the data and the working folder under the
same paths, as on a shared file system.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from align_cache.errors import AlignCacheError, BusyError, UsageError
from align_cache.runtime import require_extra

ResultT = TypeVar("ResultT")

_MAX_RETRIES = 5
"""How often a piece of work is begun again whose process or node was lost."""
_PATIENCE_S = 120.0
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Slots:
    """How many pieces of work run at once, and what each gets."""

    count: int
    cpus: int
    gpus: int
    """1 or 0."""

    def submit(self, work: Callable[..., ResultT], *arguments: Any) -> Any:
        """Start ``work`` on some node, in the folder of this process; :func:`result_of` waits for its end."""
        import ray

        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": _MAX_RETRIES}
        return ray.remote(_work).options(**options).remote(work, arguments, Path.cwd(), self)


@contextmanager
def connected(address: str | None, *, device: str) -> Iterator[Slots]:
    """Join a Ray cluster for as long as the block runs; leaving it ends all work that was started in it.

    Parameters
    ----------
    address : str, optional
        Of the cluster's head, or ``auto``; None: a cluster on this machine.
    device : str
        ``cpu`` leaves GPUs alone, ``cuda`` wants them, ``auto`` takes them where there are any.

    Raises
    ------
    UsageError
        If Ray is not installed, no cluster answers, or it has no GPU and one was asked for.
    """
    require_extra("ray", extra="ray", needed_for="--executor ray")
    import ray

    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"no Ray cluster at {address}: {str(error).splitlines()[0]}",
                         hint="start one with: ray start --head") from None  # fmt: skip
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # Ray's own would end this process with another exit code
    try:
        yield slots_of([node["Resources"] for node in ray.nodes() if node["Alive"]], device=device)
    finally:
        ray.shutdown()


def slots_of(nodes: list[dict[str, float]], *, device: str) -> Slots:
    """Divide what the nodes have: one GPU and its part of the processors each, or one processor each.

    Raises
    ------
    UsageError
        If there is no GPU and one was asked for.
    """
    gpu_nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
    if gpu_nodes and device != "cpu":
        cpus = min(node.get("CPU", 1) // node["GPU"] for node in gpu_nodes)
        return Slots(int(sum(node["GPU"] for node in gpu_nodes)), max(1, int(cpus)), 1)
    if device == "cuda":
        raise UsageError("device cuda was asked for and no node of the Ray cluster has a GPU",
                         hint="use --device auto or --device cpu")  # fmt: skip
    return Slots(max(1, int(sum(node.get("CPU", 0) for node in nodes))), 1, 0)


def result_of(reference: Any) -> Any:
    """Wait for a piece of work and return what it gave.

    Raises
    ------
    AlignCacheError
        If its process or node was lost too often. What it raised itself is raised here.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise AlignCacheError(
            f"work was lost {_MAX_RETRIES + 1} times with its process or node ({type(error).__name__}; was "
            "memory short?)",
            hint="the same command goes on from what is finished",
        ) from None


def patiently(action: Callable[[], ResultT]) -> ResultT:
    """Return what ``action`` gives; where the folder is held, try again for a while.

    A process whose node Ray counts as lost can live on for a moment, and a network file system can take a
    minute to see that the holder of a lock is gone.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return action()
        except BusyError:
            if time.monotonic() >= end:
                raise
            time.sleep(_RETRY_S)


def _work(work: Callable[..., ResultT], arguments: tuple[Any, ...], folder: Path, slots: Slots) -> ResultT:
    """Run in a process of the cluster: relative paths mean what they mean to the driver."""
    import torch

    if not slots.gpus:
        torch.set_num_threads(slots.cpus)
    with chdir(folder):
        return work(*arguments)
