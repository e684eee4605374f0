"""Commands that train: fit, demo, and listing runs."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from align_cache.cli.options import (
    DEFAULT_CACHE,
    Assignments,
    CacheDir,
    ConfigFile,
    Device,
    Json,
    print_note,
)

runs_app = typer.Typer(no_args_is_help=True, help="Look at the runs.")


def fit(
    adapter: Annotated[
        Literal["linear", "mlp", "residual", "attention", "ridge", "procrustes", "cca"] | None,
        typer.Option(help="The head to train, or to solve for."),
    ] = None,
    text_adapter: Annotated[
        Literal["lstm", "bow"] | None, typer.Option(help="Text tower to train on token ids.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="The dataset's name in the cache.")] = None,
    image_encoder: Annotated[str | None, typer.Option(help="Its image features: NAME or NAME@key.")] = None,
    text_encoder: Annotated[str | None, typer.Option(help="Its caption features.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="The features to be like; none for no target.")
    ] = None,
    num_samples: Annotated[
        str | None, typer.Option(help="At most so many training images; none for all.")
    ] = None,
    train_fraction: Annotated[
        float | None, typer.Option(help="Share of the training images; without --num-samples no other bound.")
    ] = None,
    captions_per_image: Annotated[
        str | None, typer.Option(help="Captions visited an epoch: a number or all.")
    ] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs in a micro-batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    lr_decay: Annotated[
        Literal["cosine", "linear", "step", "exponential", "constant"] | None,
        typer.Option(help="What the rate does after warm-up."),
    ] = None,
    temperature: Annotated[float | None, typer.Option()] = None,
    loss_schedule: Annotated[
        Literal["fixed", "variance", "entropy", "spread"] | None,
        typer.Option(help="What weighs the two directions of the loss."),
    ] = None,
    variance_weight: Annotated[float | None, typer.Option(help="Weight of the distribution term.")] = None,
    distribution_matching: Annotated[bool | None, typer.Option(help="Whether that term is used.")] = None,
    probe: Annotated[str | None, typer.Option(help="Labelled dataset to probe while training.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    precision: Annotated[Literal["fp32", "bf16"] | None, typer.Option(help="Of the matrix products.")] = None,
    device: Device = None,
    save_dir: Annotated[
        Path | None, typer.Option(help="Folder of the runs; runs/ in the cache if absent.")
    ] = None,
    project_name: Annotated[str | None, typer.Option()] = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Continue this run (an id or latest).")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the figures when done.")] = True,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Train adapters on cached features."""
    given = locals()
    names = {
        "adapter": "adapter.type",
        "text_adapter": "adapter.text_type",
        **{n: f"data.{n}" for n in ("dataset", "image_encoder", "text_encoder", "reference", "num_samples")},
        **{n: f"data.{n}" for n in ("train_fraction", "captions_per_image", "batch_size")},
        **{n: f"optim.{n}" for n in ("epochs", "lr")},
        "lr_decay": "optim.decay",
        "loss_schedule": "loss.schedule",
        **{n: f"loss.{n}" for n in ("temperature", "variance_weight", "distribution_matching")},
        "probe": "evaluation.probe",
        "save_dir": "log.save_dir",
        "project_name": "log.project_name",
        **{n: n for n in ("seed", "precision", "device")},
    }
    flags = {key: given[name] for name, key in names.items()}
    from align_cache.errors import UsageError
    from align_cache.settings import fit_config

    show = _EpochLines()
    if resume is not None:
        if config or assignments or any(value is not None for value in flags.values()):
            raise UsageError(
                "--resume continues with the run's own settings; nothing else can be set with it"
            )
        from align_cache.training.fitting import resume_fit

        run = resume_fit(resume, cache_dir=cache_dir, on_record=show, on_note=print_note)
    else:
        settings = fit_config(file=config, assignments=tuple(assignments or ()), flags=flags)
        from align_cache.training.fitting import fit as run_fit

        command = shlex.join(["align-cache", *sys.argv[1:]])
        run = run_fit(settings, cache_dir=cache_dir, on_record=show, on_note=print_note, command=command)
    if figures:
        from align_cache.reporting import draw_figures

        draw_figures(run.folder)
    info = run.info()
    if as_json:
        typer.echo(json.dumps({**info, "folder": str(run.folder)}, indent=2))
        return
    from align_cache.terminal.console import stderr
    from align_cache.terminal.tables import run_summary

    stderr().print(run_summary(info))
    print_note(f"next: align-cache eval {run.id}")
    typer.echo(run.folder)


def demo(cache_dir: CacheDir = DEFAULT_CACHE, as_json: Json = False) -> None:
    """Run the whole of it on drawn scenes, offline: extract, fit, eval with a probe, report."""
    from align_cache.terminal.console import progress, stdout
    from align_cache.terminal.tables import evaluation_table
    from align_cache.use.demo import demo as run_demo

    result = run_demo(cache_dir=cache_dir, progress=progress, on_note=print_note, on_record=_EpochLines())
    if as_json:
        made = {"run": str(result.run.folder), "report": str(result.report), "seconds": result.seconds}
        typer.echo(json.dumps({**made, "evaluation": result.evaluation}, indent=2))
        return
    stdout().print(evaluation_table(result.evaluation))
    typer.echo(f"{result.seconds:.0f} s; open {result.report}")


@runs_app.command("ls")
def runs_ls(cache_dir: CacheDir = DEFAULT_CACHE, as_json: Json = False) -> None:
    """List the runs, oldest first."""
    from align_cache.judging.judged_run import list_entry
    from align_cache.results import list_runs

    runs = [list_entry(run) for run in list_runs(cache_dir)]
    if as_json:
        typer.echo(json.dumps(runs, indent=2))
        return
    from align_cache.terminal.console import stdout
    from align_cache.terminal.tables import runs_table

    stdout().print(runs_table(runs) if runs else f"no runs in {cache_dir / 'runs'}")


class _EpochLines:
    """One line an epoch on stderr."""

    def __call__(self, record: dict[str, Any]) -> None:
        if record["kind"] != "epoch":
            return
        from align_cache.terminal.console import stderr

        parts = [f"epoch {record['epoch']:3d}"]
        if "train" in record:
            train = record["train"]
            parts += [f"loss {train['loss']:.3f}", f"distribution {train['variance_share']:.0%}"]
        parts.append(f"val {record['val']['loss']:.3f}")
        found = record.get("retrieval")
        if found:
            for arrow, way in (("i→t", "image_to_text"), ("t→i", "text_to_image")):
                parts.append(f"R@1 {arrow} {found[way]['r1']:.1%}")
        knn = record.get("alignment", {}).get("mutual_knn", {})
        shown = {"i–t": "image_text", "aligned–ref": "aligned_reference"}
        if knn:
            near = ", ".join(f"{name} {knn[key]:.3f}" for name, key in shown.items() if key in knn)
            parts.append(f"mutual-kNN {near}")
        parts.append(f"{record['duration_s']:.1f} s")
        stderr().print("  ".join(parts), soft_wrap=True, highlight=False)
