"""How the trials of a sweep are trained: one after the other in processes, or together in one pass."""

import multiprocessing
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from align_cache.errors import AlignCacheError
from align_cache.results import find_run
from align_cache.runtime import prepare_environment, processors
from align_cache.settings import FitConfig
from align_cache.sweeps.records import Status, scores_of
from align_cache.training.assemble import Opened
from align_cache.training.fitting import reopen, start, train
from align_cache.training.run_shape import group_size, shape_of
from align_cache.training.session import Session


@dataclass(frozen=True, slots=True)
class Task:
    """One trial to be trained."""

    key: str
    config: FitConfig
    run: str | None
    """A run that was begun before and is gone on with; None: a new one."""
    sweep: str
    command: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended."""

    key: str
    status: Status
    run: str | None = None
    error: str | None = None
    best_epoch: int | None = None
    duration_s: float = 0.0
    scores: dict[str, float] | None = None


def in_processes(tasks: Iterator[Task], cache_dir: Path, *, jobs: int | None) -> Generator[Outcome]:
    """Train each task by itself, ``jobs`` at a time, each with its share of the processors.

    A task is taken from ``tasks`` when a process is free for it, after every outcome so far was given out.
    """
    n_jobs = jobs or processors()
    context = multiprocessing.get_context("spawn")
    threads = max(1, processors() // n_jobs)
    pool = ProcessPoolExecutor(n_jobs, context, initializer=_begin_worker, initargs=(cache_dir, threads))
    running: dict[Future[Outcome], Task] = {}
    try:
        while True:
            for task in islice(tasks, n_jobs - len(running)):
                running[pool.submit(_train_alone, task)] = task
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield _outcome(future, running.pop(future))
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def in_this_process(tasks: Iterator[Task], opened: Opened, *, together: int | None) -> Generator[Outcome]:
    """Train tasks of one shape together, group after group."""
    waiting: dict[tuple[object, ...], list[Session]] = {}
    keys: dict[str, str] = {}
    for task in tasks:
        try:
            session = _session(task, opened)
        except (AlignCacheError, OSError) as error:
            yield Outcome(task.key, "failed", error=first_line(error))
            continue
        keys[session.run.id] = task.key
        shape = (*shape_of(session.config, session.parts), session.epoch, session.is_over)
        group = waiting.setdefault(shape, [])
        group.append(session)
        if len(group) >= (together or group_size(session.config, session.parts)):
            yield from _train_group(waiting.pop(shape), keys)
    for group in waiting.values():
        yield from _train_group(group, keys)


def _train_group(group: Sequence[Session], keys: dict[str, str]) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def on_end(session: Session, error: Exception | None) -> None:
        outcomes.append(_ended(session, keys[session.run.id], error))

    train(group, on_end=on_end)
    return outcomes


def _session(task: Task, opened: Opened) -> Session:
    if task.run is not None:
        return reopen(find_run(task.run, cache_dir=opened.cache_dir), opened)
    return start(task.config, opened, command=task.command, sweep=task.sweep, trial=task.key)


def _ended(session: Session, key: str, error: Exception | None) -> Outcome:
    run, seconds = session.run.id, session.spent_s
    if error is not None:
        return Outcome(key, "failed", run=run, error=first_line(error), duration_s=seconds)
    best, scores = scores_of(session.run)
    return Outcome(key, "finished", run=run, best_epoch=best, duration_s=seconds, scores=scores)


_opened: Opened | None = None
"""Of a worker process: features are opened once for all its tasks."""


def _begin_worker(cache_dir: Path, threads: int) -> None:
    global _opened
    prepare_environment()
    torch.set_num_threads(threads)
    _opened = Opened(cache_dir, whole=True)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """End this process when the one that gives it work was killed."""
    parent.join()
    os._exit(1)


def _train_alone(task: Task) -> Outcome:
    assert _opened is not None  # the initializer has run
    began = time.perf_counter()
    outcomes: list[Outcome] = []
    try:
        session = _session(task, _opened)
        train([session], on_end=lambda session, error: outcomes.append(_ended(session, task.key, error)))
    except (AlignCacheError, OSError) as error:
        return Outcome(task.key, "failed", error=first_line(error), duration_s=time.perf_counter() - began)
    return outcomes[0]


def _outcome(future: Future[Outcome], task: Task) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        raise AlignCacheError(
            "a process of the sweep was killed from outside (was memory short?)",
            hint="the same command goes on; --jobs 1 needs the least memory",
        ) from None
    except Exception as error:  # a fault of one trial, whatever it is, is no reason to lose the others
        return Outcome(task.key, "failed", error=f"{type(error).__name__}: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return an error's message without its hint."""
    return str(error).partition("\n")[0]
