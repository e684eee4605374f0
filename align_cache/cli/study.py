"""The study command: one setting under question, trained, judged and told with its intervals."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from align_cache.cli.options import DEFAULT_CACHE, Assignments, CacheDir, Json, print_note


def study(
    config: Annotated[Path, typer.Option("--config", help="A TOML file with [study] and [grid].")],
    name: Annotated[str | None, typer.Option(help="Folder of the study; the file's name if absent.")] = None,
    split: Annotated[str | None, typer.Option(help="On which the runs are judged; test if absent.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes on a CPU; one a processor if absent.")] = None,
    together: Annotated[
        int | None, typer.Option(help="Runs of one shape in one pass; what fits on a GPU if absent.")
    ] = None,
    assignments: Assignments = None,
    retry_failed: Annotated[
        bool | None, typer.Option("--retry-failed", help="Train runs again that failed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and train none.")] = False,
    figures: Annotated[bool, typer.Option(help="Draw the figures when done.")] = True,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Compare the levels of one setting: mean ± sd over seeds, and paired differences with intervals."""
    flags = {"name": name, "split": split, "jobs": jobs, "together": together, "retry_failed": retry_failed}
    from align_cache.settings import study_config

    settings = study_config(config, assignments=tuple(assignments or ()), flags=flags)
    from align_cache.studies.studying import folder_of, planned_trials
    from align_cache.studies.studying import study as run_study

    if dry_run:
        for trial in planned_trials(settings, cache_dir).values():
            typer.echo(json.dumps({"key": trial.key, "values": trial.values}))
        return
    from align_cache.reporting.study_build import report_study, study_record
    from align_cache.terminal.console import stdout
    from align_cache.terminal.live import live_study
    from align_cache.terminal.tables import study_tables

    with live_study() as (on_sweep, on_judged):
        found = run_study(
            settings,
            cache_dir=cache_dir,
            on_sweep=on_sweep,
            on_judged=on_judged,
            command=shlex.join(["align-cache", *sys.argv[1:]]),
        )
    page = report_study(found, folder_of(settings, cache_dir), figures=figures)
    for failure in found.failed:
        print_note(f"failed: {failure.values}: {failure.error}")
    if as_json:
        typer.echo(json.dumps(study_record(found), indent=2))
        return
    stdout().print(study_tables(found))
    typer.echo(page)
