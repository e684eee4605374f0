"""Commands of stage 1: extract and import."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from align_cache.cli.options import (
    DEFAULT_CACHE,
    Assignments,
    CacheDir,
    ConfigFile,
    Device,
    Executor,
    Json,
    RayAddress,
    print_note,
    split_weights,
)
from align_cache.extraction.stages import bottleneck
from align_cache.reporting.wording import byte_size

if TYPE_CHECKING:
    from align_cache.extraction.extracting import Extracted

_EXTRACT_FLAGS = (
    *("dataset", "data_dir", "name", "revision", "limit", "tokenizer", "pooling", "max_length", "precision"),
    *("resize", "dtype", "batch_size", "workers", "device", "on_error", "vocabulary", "captions_of"),
    *("decode", "image_noise", "caption_noise", "shard_of"),
)


def extract(
    dataset: Annotated[
        str | None,
        typer.Option(help="flickr30k, flickr8k, coco, cifar10, folder, shapes, shapes10, colours12."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The dataset on disk; without it, the hub.")] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="Once for each; resnet18, distilbert and dinov2 if none is named."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="[ENCODER=]WHAT", help="pretrained, random[:seed], or a file or folder."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder or file with tokenizer.json or vocab.txt.")
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Class prompt, {} for the class; once for each."),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(metavar="SET", help="dataset/encoder whose captions an untrained text encoder counts."),
    ] = None,
    captions_of: Annotated[
        str | None,
        typer.Option(metavar="SET", help="dataset/encoder in the cache whose captions are encoded."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the dataset is called in the cache.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; once for each.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many images.")] = None,
    pooling: Annotated[
        str | None, typer.Option(help="cls, mean, pooler, projection or gap; the encoder's own if absent.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens a caption is cut to.")] = None,
    resize: Annotated[
        str | None, typer.Option(help="model: the model's own preprocessing; squash: straight to its size.")
    ] = None,
    decode: Annotated[
        str | None, typer.Option(help="model: Pillow; fast: simplejpeg and torch, within two levels of 255.")
    ] = None,
    image_noise: Annotated[
        str | None, typer.Option(metavar="KIND:LEVEL", help="gaussian, blur, occlusion or jpeg, :1 to :5.")
    ] = None,
    caption_noise: Annotated[
        str | None, typer.Option(metavar="KIND:RATE", help="drop, swap, replace or shuffle, up to :1.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16: what the encoder computes in.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float16 or float32: what is stored.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples in one forward pass.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that decode images.")] = None,
    on_error: Annotated[str | None, typer.Option(help="fail or skip an unreadable image.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of the hub's dataset.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Extract again what is there.")] = False,
    shard_of: Annotated[
        str | None,
        typer.Option(metavar="RANK/WORLD", help="0/8 to 7/8: only these shards; torchrun and srun say it."),
    ] = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    device: Device = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Run frozen encoders over a dataset, once; what is there already is not made again."""
    from align_cache import extract as run_extract
    from align_cache.config import Layer, file_layer, flag_layer, resolve, set_layer
    from align_cache.runtime import processors
    from align_cache.settings import ExtractConfig
    from align_cache.shares import launched
    from align_cache.terminal.console import progress

    given = locals()
    flags: dict[str, Any] = {flag: given[flag] for flag in _EXTRACT_FLAGS}
    flags |= {"encoders": encoder, "split": split, "templates": template, "overwrite": overwrite or None}
    encoders = ["distilbert"] if captions_of else ["resnet18", "distilbert", "dinov2"]
    default = Layer("default", {"encoders": encoders})
    process = launched(os.environ) if executor == "local" else None
    layers = [
        default,
        *([Layer(process.launcher, process.settings(processors()))] if process else []),
        *([file_layer(config)] if config else []),
        set_layer(assignments or []),
        flag_layer(flags),
    ]
    if weights:
        # An encoder's name may hold dots, so this table is no dotted key.
        layers.append(Layer("--weights", {"weights": split_weights(weights, encoder or [])}))
    settings = resolve(ExtractConfig, layers)
    quiet = process is not None and process.share.rank > 0  # one bar is enough on a terminal that all share
    to_user: dict[str, Any] = {
        "progress": None if quiet else progress,
        "on_note": _note_of(settings.shard_of),
    }
    if executor == "ray":
        from align_cache.extraction.on_ray import extract_on_ray

        results = extract_on_ray(settings, cache_dir=cache_dir, address=ray_address, **to_user)
    else:
        results = run_extract(settings, cache_dir=cache_dir, **to_user)
    if as_json:
        typer.echo(json.dumps([_as_json(result) for result in results], indent=2))
    elif results:
        _show(results)


def import_features(
    file: Annotated[Path, typer.Argument(help="An .npz with sample_id, features and what applies.")],
    dataset: Annotated[str, typer.Option(help="What the dataset is called in the cache.")],
    encoder: Annotated[str, typer.Option(help="What the encoder is called in the cache.")],
    modality: Annotated[Literal["image", "text"], typer.Option(help="What the rows are of.")],
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="What is stored.")] = "float16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write again what is there.")] = False,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Bring your own features: arrays sample_id, features, optional group_id, split, label, text."""
    from align_cache.extraction.external import import_features as run_import

    imported = run_import(
        file,
        dataset=dataset,
        encoder=encoder,
        modality=modality,
        cache_dir=cache_dir,
        dtype=dtype,
        overwrite=overwrite,
    )
    manifest = imported.manifest
    if as_json:
        facts = {"name": manifest.name, "rows": manifest.rows, "dim": manifest.dim}
        place = {"folder": str(imported.folder), "already_there": imported.already_there}
        typer.echo(json.dumps({**facts, **place}))
    else:
        status = "already there" if imported.already_there else "imported"
        typer.echo(f"{manifest.name}: {manifest.rows:,} x {manifest.width}, {status}")


def _note_of(share: str | None) -> Callable[[str], None]:
    """Say which process a note is of, where several write to one terminal."""
    return print_note if share is None else lambda line: print_note(f"{share}: {line}")


def _as_json(result: "Extracted") -> dict[str, Any]:
    return {
        "name": result.name,
        "noise": result.noise,
        "folder": str(result.folder),
        "rows": result.rows,
        "dim": result.dim,
        "width": result.width,
        "status": result.status,
        "untrained": result.untrained,
        "skipped": [list(skipped) for skipped in result.skipped],
        "counts": dict(result.counts),
        "seconds": round(result.seconds, 3),
        "samples_done": result.samples_done,
        "stages": {stage: round(spent, 3) for stage, spent in result.stages.items()},
    }


def _stages(results: "list[Extracted]") -> dict[str, float]:
    """Add up where the time of one modality went: images are waited for once, each encoder has its own."""
    stages: dict[str, float] = {}
    for result in results:
        for stage, spent in result.stages.items():
            name = result.encoder if stage == "model" else stage
            stages[name] = spent if stage == "decode" else stages.get(name, 0.0) + spent
    return stages


def _show(results: "list[Extracted]") -> None:
    from rich.table import Table

    from align_cache.runtime import peak_memory_bytes
    from align_cache.terminal.console import stdout

    table = Table(
        "feature set", "rows x dim", "status", "rate", "", box=None, pad_edge=False, header_style="bold"
    )
    for result in results:
        rate = (
            f"{result.samples_done / result.seconds:,.0f}/s" if result.seconds and result.samples_done else ""
        )
        facts = ["untrained"] if result.untrained else []
        facts += [f"{len(result.skipped)} skipped"] if result.skipped else []
        facts += [f"{count:,} {what}" for what, count in result.counts.items() if count]
        name, shape = result.name, f"{result.rows:,} x {result.width}"
        table.add_row(name, shape, result.status, rate, ", ".join(facts))
    stdout().print(table)
    for modality in ("image", "text"):
        if stages := _stages([result for result in results if result.modality == modality]):
            print_note(f"{modality}s: {bottleneck(stages)}")
    if any(result.samples_done for result in results):
        print_note(f"peak memory {byte_size(peak_memory_bytes())}")
