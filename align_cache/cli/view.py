"""The command that opens a page: view."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from align_cache.cli.options import DEFAULT_CACHE, CacheDir, Json, RunName, print_note
from align_cache.runtime import DeviceName


def view(
    run: RunName = "latest",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in the browser, where there is a display.")
    ] = True,
    split: Annotated[
        str | None, typer.Option(help="Of the map and the search. test if there is one, else val.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="At most so many images of it, drawn at random.")] = 3000,
    dataset: Annotated[
        str | None, typer.Option(help="Layout of --data-dir where the features do not say: flickr8k, folder…")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The images; where they were extracted from if absent.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where embeddings are made.")] = "auto",
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Open a local page on the runs of the cache: curves, alignment, a map to move in, search."""
    from align_cache.viewing import open_view

    with open_view(
        run,
        cache_dir=cache_dir,
        port=port,
        split=split,
        pairs=pairs,
        dataset=dataset,
        data_dir=data_dir,
        device=device,
    ) as server:
        shown = server.viewer.first.id
        typer.echo(json.dumps({"url": server.url, "run": shown}) if as_json else server.url)
        sys.stdout.flush()  # whoever reads a pipe waits for this line
        print_note(f"{shown}, for this machine alone; Ctrl-C closes it")
        if open_browser and _has_display():
            import webbrowser

            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it, not a failure
            print_note("closed")


def _has_display() -> bool:
    """Whether a browser could open a window: one inside the terminal would be of no use."""
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
