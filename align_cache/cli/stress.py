"""The command that tests runs under noise."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from align_cache.cli.options import DEFAULT_CACHE, CacheDir, Device, Json, print_note

if TYPE_CHECKING:
    from align_cache.results import Record, Run


def stress(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Ids, heads of ids, folders, or latest.")
    ],
    image_noise: Annotated[
        list[str] | None,
        typer.Option(help="gaussian, blur, occlusion or jpeg, on the images; may be repeated."),
    ] = None,
    caption_noise: Annotated[
        list[str] | None,
        typer.Option(help="drop, swap, replace or shuffle, on the captions; may be repeated."),
    ] = None,
    feature_noise: Annotated[
        list[str] | None,
        typer.Option(help="gaussian or dropout, which need no extraction; both if no noise is named."),
    ] = None,
    feature_side: Annotated[
        Literal["image", "text", "both"] | None, typer.Option(help="Whose features take noise.")
    ] = None,
    severity: Annotated[
        list[int] | None,
        typer.Option(help="Of noise on images and features, 1 to 5; may be repeated, all if absent."),
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Of noise on captions, above 0 to 1; 0.1, 0.3 and 0.5 if absent."),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"] | None, typer.Option()] = None,
    split: Annotated[str | None, typer.Option(help="test if the dataset has one, else val.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that decode images.")] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="PNG", help="Draw several runs in one figure.")
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Show how retrieval falls with noise on images, captions or features; several runs are compared."""
    from align_cache.config import flag_layer, resolve
    from align_cache.results import find_run
    from align_cache.settings import StressConfig
    from align_cache.studies.stressing import stress as run_stress
    from align_cache.terminal.console import progress

    flags = {
        "image_noise": image_noise or None,
        "caption_noise": caption_noise or None,
        "feature_noise": feature_noise or None,
        "feature_side": feature_side,
        "severities": severity or None,
        "rates": rate or None,
        "checkpoint": checkpoint,
        "split": split,
        "workers": workers,
        "device": device,
    }
    config = resolve(StressConfig, [flag_layer(flags)])
    found = list({run.folder: run for run in (find_run(name, cache_dir=cache_dir) for name in runs)}.values())
    _check_figure(figure, n_runs=len(found))
    tested = []
    for run in found:
        record = run_stress(run, config, cache_dir=cache_dir, progress=progress, on_note=print_note)
        tested.append((run, record))
    _show(tested, figure, as_json=as_json)


def _check_figure(figure: Path | None, *, n_runs: int) -> None:
    from align_cache.errors import UsageError

    if figure is not None and n_runs == 1:
        raise UsageError(
            "--figure is of several runs", hint="that of one run is figures/stress.png in its folder"
        )
    if figure is not None and figure.suffix != ".png":
        raise UsageError(
            f"--figure {figure}: the figure is a PNG", hint=f"--figure {figure.with_suffix('.png')}"
        )


def _show(tested: "list[tuple[Run, Record]]", figure: Path | None, *, as_json: bool) -> None:
    from align_cache.judging.stress_comparison import compare_stress
    from align_cache.reporting.stress_figure import draw_stress, draw_stress_comparison
    from align_cache.reporting.stress_tables import stress_comparison_tables, stress_tables
    from align_cache.terminal.console import stdout
    from align_cache.terminal.tables import tables_group

    for run, _ in tested:
        print_note(f"figure: {draw_stress(run)}")
    if len(tested) == 1:
        record = tested[0][1]
        shown = tables_group(stress_tables(record), untrained=record["untrained"], notes=record["notes"])
        if as_json:
            typer.echo(json.dumps(record, indent=2))
        else:
            stdout().print(shown)
        return
    comparison = compare_stress(tested)
    if figure is not None:
        print_note(f"figure: {draw_stress_comparison(comparison, figure)}")
    if as_json:
        typer.echo(json.dumps(comparison.to_record(), indent=2))
    else:
        tables = stress_comparison_tables(comparison)
        stdout().print(tables_group(tables, untrained=comparison.untrained))
