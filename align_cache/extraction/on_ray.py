"""Extraction on a Ray cluster: every piece of work is one share of the shards, made as a rank would make it.

Nothing travels over Ray but settings. Shards are published where they belong, so that work that is begun
again elsewhere, after its node was lost, finds what is finished, and progress is what lies on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from align_cache.errors import UsageError
from align_cache.extraction.encoding import Job
from align_cache.extraction.extracting import Extracted, extract
from align_cache.extraction.planning import plan
from align_cache.progress import Progress, no_progress
from align_cache.ray_cluster import Slots, connected, patiently, result_of
from align_cache.runtime import prepare_environment
from align_cache.settings import ExtractConfig
from align_cache.shares import Share
from align_cache.store import FeatureSetWriter, is_complete
from align_cache.store.layout import feature_set_folder, identity_key, shard_slices

_SHARES_PER_SLOT = 4
"""More shares than slots, so that fast nodes take more of them; not many more, as each loads its models."""
_POLL_S = 1.0


def extract_on_ray(
    config: ExtractConfig,
    *,
    cache_dir: Path,
    address: str | None = None,
    progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[Extracted]:
    """Extract as :func:`align_cache.extraction.extracting.extract` does, on every node of a Ray cluster.

    Parameters
    ----------
    config : ExtractConfig
        Whole: shares are given out here.
    cache_dir : Path
        On a file system that all nodes see.
    address : str, optional
        Of the cluster's head, or ``auto``; None: a cluster on this machine.
    progress, on_note : callable, optional
        As :func:`~align_cache.extraction.extracting.extract` takes them; progress counts shards.

    Returns
    -------
    list of Extracted
        One for each encoder, in the order asked for.

    Raises
    ------
    UsageError
        If ``config`` is a share already, or as :func:`~align_cache.ray_cluster.connected` says.
    AlignCacheError
        What a share raises ends all. What is published stays, and the same call goes on from there.
    """
    if config.shard_of is not None:
        raise UsageError(f"shard_of is {config.shard_of}, and on Ray shares are given out by the driver",
                         hint="leave --shard-of out")  # fmt: skip
    cache_dir = cache_dir.absolute()
    jobs = plan(config, cache_dir).jobs
    todo = [job for job in jobs if config.overwrite or is_complete(cache_dir, job.identity) is None]
    if todo:
        with connected(address, device=config.device) as slots:
            if config.overwrite:
                _drop(todo, cache_dir)
                config = config.model_copy(update={"overwrite": False})
            _make(config, cache_dir, todo, slots, progress or no_progress)
    # Publishes what no share could: where the last of them was killed, or held up by the lock of a lost one.
    results = patiently(lambda: extract(config, cache_dir=cache_dir, progress=progress, on_note=on_note))
    made = {identity_key(job.identity) for job in todo}
    return [replace(result, status="extracted") if result.key in made else result for result in results]


def _drop(jobs: Sequence[Job], cache_dir: Path) -> None:
    """Remove what is there, once for all: a share that is begun again must not lose what it has made."""
    for job in jobs:
        with FeatureSetWriter(cache_dir, job.identity, untrained=job.spec.untrained, overwrite=True):
            pass  # entering is enough


def _make(
    config: ExtractConfig, cache_dir: Path, jobs: Sequence[Job], slots: Slots, progress: Progress
) -> None:
    import ray

    n_shards = [len(shard_slices(job.identity)) for job in jobs]
    world = min(max(n_shards), _SHARES_PER_SLOT * slots.count)
    workers = config.workers or slots.cpus
    running = []
    for rank in range(world):
        part = {"shard_of": None if world == 1 else str(Share(rank, world)), "workers": workers}
        running.append(slots.submit(_make_share, config.model_copy(update=part), cache_dir))
    where = f"{world} shares on {slots.count} {'GPUs' if slots.gpus else 'processors'}"
    with progress(sum(n_shards), where, "shards") as bar:
        shown = 0
        while running:
            done, running = ray.wait(running, timeout=_POLL_S)
            for reference in done:
                result_of(reference)
            there = sum(_n_there(cache_dir, job) for job in jobs)
            bar.advance(there - shown)
            shown = there


def _make_share(config: ExtractConfig, cache_dir: Path) -> None:
    prepare_environment()
    patiently(lambda: extract(config, cache_dir=cache_dir))


def _n_there(cache_dir: Path, job: Job) -> int:
    return len(list(feature_set_folder(cache_dir, job.identity).glob("shard-*.h5")))
