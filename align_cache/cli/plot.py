"""Commands that draw one kind of picture: plot tsne."""

import json
from pathlib import Path
from typing import Annotated

import typer

from align_cache.cli.options import DEFAULT_CACHE, CacheDir, Device, Json, RunName

plot_app = typer.Typer(no_args_is_help=True, help="Draw pictures of a run, one kind at a time.")


@plot_app.callback()
def _plot() -> None:
    """Draw pictures of a run, one kind at a time; all figures of a run: align-cache report."""


@plot_app.command()
def tsne(
    run: RunName = "latest",
    perplexity: Annotated[
        list[int] | None, typer.Option(help="Once for each picture. 5, 10, 30 and 50 if absent.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="At most so many, drawn at random.")] = 500,
    split: Annotated[str | None, typer.Option(help="test if the dataset has one, else val.")] = None,
    features: Annotated[
        bool, typer.Option("--features/--embeddings", help="Raw features, of two towers of one model.")
    ] = False,
    epoch: Annotated[
        int | None,
        typer.Option(help="A kept epoch's validation embeddings; the best checkpoint's if absent."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which pairs are drawn.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; the run's figures/ if absent.")
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Lay image–caption pairs out by t-SNE: images red, captions blue, each pair joined by a line."""
    from align_cache.results import find_run
    from align_cache.terminal.console import progress
    from align_cache.use.plotting import PERPLEXITIES, plot_tsne

    with progress(None, "laying out", "pictures") as bar:
        record = plot_tsne(
            find_run(run, cache_dir=cache_dir),
            cache_dir=cache_dir,
            perplexities=perplexity or PERPLEXITIES,
            pairs=pairs,
            split=split,
            space="features" if features else "embeddings",
            epoch=epoch,
            seed=seed,
            out=out,
            device=device or "auto",
            on_progress=bar.update,
        )
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    from align_cache.terminal.console import stderr
    from align_cache.terminal.tables import pairs_table

    stderr().print(pairs_table(record))
    for figure in record["figures"]:
        typer.echo(figure["path"])
