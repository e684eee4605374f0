"""Commands that judge and show: eval, report, compare."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from align_cache.cli.options import (
    DEFAULT_CACHE,
    CacheDir,
    Device,
    Json,
    RunName,
    print_note,
)


def evaluate(
    run: RunName = "latest",
    probe: Annotated[str | None, typer.Option(help="Labelled dataset to probe, for example cifar10.")] = None,
    probe_image_encoder: Annotated[
        str | None, typer.Option(help="Its image features where they bear another name than the run's.")
    ] = None,
    probe_reference: Annotated[str | None, typer.Option(help="Its reference features, likewise.")] = None,
    probe_with_reference: Annotated[
        bool | None, typer.Option("--probe-with-reference/--probe-without-reference")
    ] = None,
    probe_head: Annotated[
        list[str] | None,
        typer.Option(help="linear, mlp, ridge or knn; may be repeated. Linear and mlp if absent."),
    ] = None,
    probe_k: Annotated[int | None, typer.Option(help="Neighbours that vote in the knn head.")] = None,
    zero_shot: Annotated[
        str | None, typer.Option(help="Labelled dataset to classify by its class prompts.")
    ] = None,
    zero_shot_image_encoder: Annotated[
        str | None, typer.Option(help="Its image features where they bear another name than the run's.")
    ] = None,
    zero_shot_text_encoder: Annotated[
        str | None, typer.Option(help="Its prompts' features, likewise.")
    ] = None,
    checkpoint: Annotated[Literal["best", "last"] | None, typer.Option()] = None,
    split: Annotated[str | None, typer.Option(help="test if the dataset has one, else val.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many images of it, drawn by the seed; all if absent.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Alignment metric, or all; may be repeated. Mutual k-NN and CKA if absent."),
    ] = None,
    k: Annotated[int | None, typer.Option(help="Neighbours of the metrics that compare neighbours.")] = None,
    permutations: Annotated[
        int | None, typer.Option(help="Shuffles of the permutation null; none if absent.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the shuffles, and of the probe's split and head.")
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Judge a run: alignment, retrieval, hypotheses, distribution; a probe and zero-shot where named."""
    given = locals()
    names = (
        *("probe", "probe_image_encoder", "probe_reference", "probe_with_reference", "probe_k"),
        *("zero_shot", "zero_shot_image_encoder", "zero_shot_text_encoder"),
        *("checkpoint", "split", "limit", "k", "permutations", "seed", "device"),
    )
    from align_cache.config import flag_layer, resolve
    from align_cache.results import find_run
    from align_cache.settings import EvalConfig
    from align_cache.terminal.console import progress

    flags = {name: given[name] for name in names}
    flags |= {"metrics": metric or None, "probe_heads": probe_head or None}
    settings = resolve(EvalConfig, [flag_layer(flags)])
    judged = find_run(run, cache_dir=cache_dir)
    from align_cache.judging.evaluation import evaluate as run_evaluate

    with progress(None, "measuring", "steps") as bar:
        record = run_evaluate(
            judged, settings, cache_dir=cache_dir, on_stage=print_note, on_progress=bar.update
        )
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    from align_cache.terminal.console import stdout
    from align_cache.terminal.tables import evaluation_table

    stdout().print(evaluation_table(record))


def report(
    run: Annotated[
        str, typer.Argument(help="A run's id, the head of it, its folder, or latest; or a sweep's folder.")
    ] = "latest",
    perplexity: Annotated[
        list[int] | None,
        typer.Option(help="Of a t-SNE; once for each. 30 where there are points enough."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Layout of --data-dir where the features do not say: flickr8k, folder…")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The images of the gallery; where they were extracted from if absent.")
    ] = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Draw the figures of a run or a sweep and write its report.html, one file that needs nothing else."""
    from align_cache.sweeps.records import is_sweep

    if is_sweep(Path(run)):
        _report_sweep(Path(run), given=(perplexity, dataset, data_dir), as_json=as_json)
        return
    from align_cache.reporting import report as run_report
    from align_cache.results import find_run
    from align_cache.terminal.console import progress
    from align_cache.use.pictures import collect_pictures

    found = find_run(run, cache_dir=cache_dir)
    pictures = collect_pictures(
        found, cache_dir=cache_dir, dataset=dataset, data_dir=data_dir, on_note=print_note
    )
    if pictures.note:
        print_note(f"pictures: {pictures.note}")
    with progress(None, "drawing", "figures") as bar:
        page = run_report(found.folder, perplexities=perplexity, on_progress=bar.update)
    if as_json:
        made = {"report": str(page), "figures": str(found.folder / "figures")}
        typer.echo(json.dumps({**made, "pictures": pictures.found, "pictures_note": pictures.note}))
    else:
        typer.echo(page)


def _report_sweep(folder: Path, *, given: tuple[object, ...], as_json: bool) -> None:
    from align_cache.cli.sweep import draw_report
    from align_cache.errors import UsageError

    if any(value is not None for value in given):
        raise UsageError(f"{folder} is a sweep's: --perplexity, --dataset and --data-dir are for runs")
    page = draw_report(folder)
    made = {"report": str(page), "figures": str(page.parent / "figures")}
    typer.echo(json.dumps(made) if as_json else page)


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Ids, heads of ids, folders, or latest.")
    ],
    csv: Annotated[
        str | None,
        typer.Option("--csv", metavar="FILE|-", help="Write every mean and sd as CSV; - is stdout."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="PNG", help="Draw the runs as small multiples.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one page: tables, curves, final values."),
    ] = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Set evaluated runs side by side; those that differ in the seed alone become mean ± sd."""
    from align_cache.errors import UsageError
    from align_cache.files import publish_text
    from align_cache.judging.comparison import compare as run_compare
    from align_cache.results import find_run

    if csv == "-" and as_json:
        raise UsageError("--csv - and --json both write to stdout", hint="give --csv a file")
    if figure is not None and figure.suffix != ".png":
        raise UsageError(
            f"--figure {figure}: the figure is a PNG", hint=f"--figure {figure.with_suffix('.png')}"
        )
    comparison = run_compare([find_run(name, cache_dir=cache_dir) for name in runs])
    if figure is not None:
        from align_cache.reporting.comparison_figure import draw_comparison

        print_note(f"figure: {draw_comparison(comparison, figure)}")
    if html is not None:
        from align_cache.reporting.comparison_page import publish_comparison

        print_note(f"page: {publish_comparison(comparison, html)}")
    if csv not in (None, "-"):
        publish_text(Path(csv), comparison.to_csv())
    if csv == "-":
        typer.echo(comparison.to_csv(), nl=False)
    elif as_json:
        typer.echo(json.dumps(comparison.to_record(), indent=2))
    else:
        from align_cache.terminal.console import stdout
        from align_cache.terminal.tables import comparison_table

        stdout().print(comparison_table(comparison))
