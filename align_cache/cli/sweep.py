"""The sweep command: many runs from one file, with a leaderboard while they train."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from align_cache.cli.options import (
    DEFAULT_CACHE,
    Assignments,
    CacheDir,
    Executor,
    Json,
    RayAddress,
    print_note,
)


def sweep(
    config: Annotated[Path, typer.Option("--config", help="A TOML file with [grid] or [random].")],
    name: Annotated[str | None, typer.Option(help="Folder of the sweep; the file's name if absent.")] = None,
    trials: Annotated[int | None, typer.Option(help="Points of [random].")] = None,
    sampler: Annotated[Literal["random", "tpe"] | None, typer.Option(help="tpe learns from trials.")] = None,
    rank_by: Annotated[Literal["mean_recall", "val_loss"] | None, typer.Option()] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes on a CPU; one a processor if absent.")] = None,
    together: Annotated[
        int | None, typer.Option(help="Runs of one shape in one pass; what fits on a GPU if absent.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the points of [random].")] = None,
    assignments: Assignments = None,
    retry_failed: Annotated[
        bool | None, typer.Option("--retry-failed", help="Train trials again that failed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials and train none.")] = False,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    figures: Annotated[bool, typer.Option(help="Draw the figures and the page when done.")] = True,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Train many runs from one cache: a grid, random points, or points that learn from the trials before."""
    given = locals()
    from align_cache.settings import sweep_config
    from align_cache.sweeps.records import ranked, trials_of
    from align_cache.sweeps.sweeping import sweep as run_sweep
    from align_cache.sweeps.trials import plan

    own = ("name", "trials", "sampler", "rank_by", "jobs", "together", "seed", "retry_failed")
    flags = {key: given[key] for key in own}
    settings = sweep_config(config, assignments=tuple(assignments or ()), flags=flags)
    if dry_run:
        for trial in plan(settings, cache_dir):
            typer.echo(json.dumps({"key": trial.key, "values": trial.values}))
        return
    from align_cache.terminal.console import stdout
    from align_cache.terminal.live import live_leaderboard
    from align_cache.terminal.tables import sweep_table

    with live_leaderboard(settings.rank_by) as show:
        folder = run_sweep(
            settings,
            cache_dir=cache_dir,
            on_progress=lambda standing: show(standing.ended, standing.n_trials),
            command=shlex.join(["align-cache", *sys.argv[1:]]),
            executor=executor,
            ray_address=ray_address,
        )
    ended = trials_of(folder)
    order = ranked(ended, settings.rank_by)
    if figures:
        print_note(f"report: {draw_report(folder)}")
    if as_json:
        typer.echo(json.dumps([{"run": t.run, "values": t.values, **t.scores} for t in order], indent=2))
        return
    stdout().print(sweep_table(ended, settings.rank_by))
    for record in ended:
        if record.status == "failed":
            print_note(f"failed: {record.values}: {record.error}")
    print_note(f"next: align-cache eval {order[0].run}" if order else "no trial finished")
    typer.echo(folder)


def draw_report(folder: Path) -> Path:
    """Draw a sweep's figures and write its page, with a bar that shows how far it has come."""
    from align_cache.reporting import report_sweep
    from align_cache.terminal.console import progress

    with progress(None, "drawing", "figures") as bar:
        return report_sweep(folder, on_progress=bar.update)
