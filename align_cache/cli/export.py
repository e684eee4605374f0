"""The command export: a run's adapters and embeddings, for other programs."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from align_cache.cli.options import DEFAULT_CACHE, CacheDir, Device, Json, RunName, print_note


def export(
    to: Annotated[
        Literal["safetensors", "onnx", "npz", "parquet", "datasets", "faiss"],
        typer.Option("--to", help="safetensors, onnx: the adapters; the others: embeddings with their ids."),
    ],
    run: RunName = "latest",
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; one in the run's exports/ if absent.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of the embeddings, or all; test if the dataset has one, else val.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Embed another dataset that the run's encoders have seen.")
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option()] = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write again what is there.")] = False,
    device: Device = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Write a run's adapters or embeddings in a format that other programs read."""
    from align_cache.results import find_run
    from align_cache.terminal.console import progress

    found = find_run(run, cache_dir=cache_dir)
    from align_cache.exporting import export as run_export

    record = run_export(
        found,
        to=to,
        out=out,
        cache_dir=cache_dir,
        checkpoint=checkpoint,
        dataset=dataset,
        split=split,
        device=device or "auto",
        overwrite=overwrite,
        progress=progress,
        on_note=print_note,
    )
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    print_note(_said(record))
    typer.echo(record["folder"])


def _said(record: dict[str, Any]) -> str:
    """Say in one line what was written."""
    dim, size = record["embed_dim"], sum(file["bytes"] for file in record["files"])
    if "rows" in record:
        what = " and ".join(f"{n:,} {modality}" for modality, n in record["rows"].items())
        said = f"{what} embeddings of {record['dataset']} ({record['split']}), {dim:,} components each"
    else:
        sides = (f"{side} {record[side]['dim']:,} {record[side]['input']}" for side in ("image", "text"))
        said = f"adapters, {' and '.join(sides)} to {dim:,} components"
    untrained = f"; UNTRAINED encoders: {', '.join(record['untrained'])}" if record["untrained"] else ""
    return f"{said}, {size / 1e6:,.1f} MB{untrained}"
