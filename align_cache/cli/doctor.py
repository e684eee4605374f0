"""What works here and what does not: doctor."""

import json
from typing import Annotated

import typer

from align_cache.cli.options import DEFAULT_CACHE, CacheDir, Json


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte of the cache, not only manifests and sizes.")
    ] = False,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Look at packages, machine, hub, cache, and what encoders and datasets need; exit 1 if one is broken."""
    from align_cache.diagnosis import doctor as look
    from align_cache.diagnosis.words import diagnosis_lines
    from align_cache.terminal.console import progress

    diagnosis = look(cache_dir=cache_dir, deep=deep, progress=progress)
    if as_json:
        typer.echo(json.dumps(diagnosis.to_record(), indent=2))
    else:
        for line in diagnosis_lines(diagnosis):
            typer.echo(line)
    raise typer.Exit(0 if diagnosis.usable else 1)
