"""How the runs of a cache stand: how many ended, which stopped, which cannot be read."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from align_cache.diagnosis.cache import cache_option
from align_cache.diagnosis.problems import Problem
from align_cache.errors import AlignCacheError, RunError
from align_cache.files import TEMPORARY_SUFFIX
from align_cache.lock import holder_of
from align_cache.progress import Progress
from align_cache.results import Record, Run, list_runs

_SHOWN_RUNS = 3


def look_at_runs(
    cache_dir: Path, *, deep: bool, progress: Progress
) -> tuple[Mapping[str, int], tuple[Problem, ...]]:
    """Count the runs of a cache by how they stand, and name those with something amiss.

    Parameters
    ----------
    cache_dir : Path
    deep : bool
        Whether to read their logs and put their adapters together too, beside ``run.json`` and
        ``config.toml``.
    progress : callable
        Makes the bar over the runs.

    Returns
    -------
    dict of str to int
        ``finished``, ``failed``, ``running``, ``stopped`` (said to run, and no process does), ``damaged``.
    tuple of Problem
    """
    try:
        runs = list_runs(cache_dir)
    except RunError as error:
        return {}, (Problem(error.message, "remove that line: the runs themselves are whole", broken=True),)
    standing: dict[str, list[Run]] = {}
    problems: list[Problem] = []
    with progress(len(runs), "checking runs", "runs") as bar:
        for run in runs:
            try:
                status = _status(run, deep=deep)
            except AlignCacheError as error:
                status, mend = "damaged", f"restore {run.folder} from a copy, or remove it and train again"
                problems.append(Problem(error.message, mend, broken=True))
            standing.setdefault(status, []).append(run)
            bar.advance()
    problems += _stopped(standing.get("stopped", []), cache_dir)
    problems += _left_over(runs)
    return {status: len(each) for status, each in standing.items()}, tuple(problems)


def _status(run: Run, *, deep: bool) -> str:
    info = run.info()
    run.config()
    if deep:
        from align_cache.adapters.run_adapters import load_pair

        run.records()
        run.results()
        if info.get("status") == "finished":
            load_pair(run)
    status = str(info.get("status"))
    if status in ("running", "interrupted"):
        return "running" if holder_of(run.folder / "training") else "stopped"
    return status


def _stopped(runs: list[Run], cache_dir: Path) -> Iterator[Problem]:
    """Say what goes on with runs that stopped: of a sweep its own command, else one command each."""
    swept: dict[str, list[Record]] = {}
    for info in (run.info() for run in runs):
        swept.setdefault(str(info.get("sweep") or ""), []).append(info)
    for sweep, infos in swept.items():
        ids = [str(info.get("id")) for info in infos]
        named = ", ".join(ids[:_SHOWN_RUNS]) + (", …" if len(ids) > _SHOWN_RUNS else "")
        of = f" of the sweep {sweep}" if sweep else ""
        resume = f"align-cache fit --resume {shlex.quote(ids[0])}{cache_option(cache_dir)}"
        mend = "the sweep's own command goes on" if sweep else resume
        yield Problem(f"{len(ids)} of the runs{of} stopped before the end: {named}", mend, broken=False)


def _left_over(runs: list[Run]) -> Iterator[Problem]:
    for run in runs:
        if holder_of(run.folder / "training"):
            continue
        halves = sorted(run.folder.glob(f"**/.*{TEMPORARY_SUFFIX}"))
        if halves:
            files = " ".join(shlex.quote(str(path)) for path in halves)
            yield Problem(f"{run.id} holds {len(halves)} half-written files", f"rm -r {files}", broken=False)
