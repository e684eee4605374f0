"""Commands of stage 1: extract, import, and looking after the cache."""

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from align_cache.cli.options import (
    DEFAULT_CACHE,
    Assignments,
    CacheDir,
    ConfigFile,
    Device,
    Json,
    split_weights,
)
from align_cache.reporting.wording import byte_size

if TYPE_CHECKING:
    from align_cache.extraction import Extracted

cache_app = typer.Typer(no_args_is_help=True, help="Look after the feature sets on disk.")

_EXTRACT_FLAGS = (
    *("dataset", "data_dir", "name", "revision", "limit", "tokenizer", "pooling", "max_length", "precision"),
    *("resize", "dtype", "batch_size", "workers", "device", "on_error"),
)
SetName = Annotated[
    str | None, typer.Argument(metavar="[SET]", help="dataset, dataset/encoder or dataset/encoder@key.")
]


def extract(
    dataset: Annotated[
        str | None, typer.Option(help="flickr30k, flickr8k, cifar10, folder, shapes or shapes10.")
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
    name: Annotated[str | None, typer.Option(help="What the dataset is called in the cache.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; once for each.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many images.")] = None,
    pooling: Annotated[
        str | None, typer.Option(help="cls, mean, pooler or gap; the encoder's own if absent.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens a caption is cut to.")] = None,
    resize: Annotated[
        str | None, typer.Option(help="model: the model's own preprocessing; squash: straight to its size.")
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
    device: Device = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Run frozen encoders over a dataset, once; what is there already is not made again."""
    from align_cache import extract as run_extract
    from align_cache.config import Layer, file_layer, flag_layer, resolve, set_layer
    from align_cache.console import progress
    from align_cache.settings import ExtractConfig

    given = locals()
    flags: dict[str, Any] = {flag: given[flag] for flag in _EXTRACT_FLAGS}
    flags |= {"encoders": encoder, "split": split, "overwrite": overwrite or None}
    default = Layer("default", {"encoders": ["resnet18", "distilbert", "dinov2"]})
    layers = [
        default,
        *([file_layer(config)] if config else []),
        set_layer(assignments or []),
        flag_layer(flags),
    ]
    if weights:
        # An encoder's name may hold dots, so this table is no dotted key.
        layers.append(Layer("--weights", {"weights": split_weights(weights, encoder or [])}))
    settings = resolve(ExtractConfig, layers)
    results = run_extract(settings, cache_dir=cache_dir, progress=progress, on_note=_note)
    if as_json:
        typer.echo(json.dumps([_as_json(result) for result in results], indent=2))
    else:
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
    from align_cache.external import import_features as run_import

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
        typer.echo(f"{manifest.name}: {manifest.rows:,} x {manifest.dim}, {status}")


@cache_app.command("ls")
def cache_ls(cache_dir: CacheDir = DEFAULT_CACHE, as_json: Json = False) -> None:
    """List the finished feature sets."""
    from align_cache.store import find

    stored = find(cache_dir)
    if as_json:
        typer.echo(json.dumps([_summary(entry) for entry in stored], indent=2))
        return
    from rich.table import Table

    from align_cache.console import stdout

    table = Table("set", "modality", "rows", "dim", "size", "", box=None, pad_edge=False, header_style="bold")
    for row in map(_summary, stored):
        size, flag = byte_size(row["bytes"]), "untrained" if row["untrained"] else ""
        table.add_row(row["name"], row["modality"], f"{row['rows']:,}", str(row["dim"]), size, flag)
    stdout().print(table if stored else f"no feature sets in {cache_dir / 'features'}")


@cache_app.command("info")
def cache_info(name: SetName = None, cache_dir: CacheDir = DEFAULT_CACHE, as_json: Json = False) -> None:
    """Show what a feature set is made of, and how sets of one encoder differ."""
    from align_cache.store.layout import differences

    stored = _matching(cache_dir, name)
    if as_json:
        typer.echo(json.dumps([_details(entry) for entry in stored], indent=2))
        return
    for entry in stored:
        row = _details(entry)
        typer.echo(f"{row['name']}  {row['rows']:,} x {row['dim']}  {byte_size(row['bytes'])}")
        for key in ("folder", "counts", "skipped"):
            typer.echo(f"{key}: {row[key]}")
        for key in ("identity", "provenance"):
            typer.echo(f"{key}: {json.dumps(row[key], indent=2)}")
        typer.echo()
    for first, second in pairwise(entry.manifest for entry in stored):
        if (first.dataset, first.encoder) == (second.dataset, second.encoder):
            for path, one, other in differences(first.identity, second.identity):
                typer.echo(f"{path}: {one!r} in {first.name}, {other!r} in {second.name}")


@cache_app.command("verify")
def cache_verify(name: SetName = None, cache_dir: CacheDir = DEFAULT_CACHE, as_json: Json = False) -> None:
    """Check every byte; exit 1 if anything is damaged."""
    from align_cache.store.verify import verify

    folders = [entry.folder for entry in _matching(cache_dir, name)] if name else [cache_dir]
    findings = [finding for folder in folders for finding in verify(folder)]
    damaged = sum(finding.kind == "damage" for finding in findings)
    if as_json:
        typer.echo(
            json.dumps(
                [{"path": str(f.path), "problem": f.problem, "kind": f.kind} for f in findings], indent=2
            )
        )
    else:
        for finding in findings:
            typer.echo(f"{finding.kind}: {finding.path}: {finding.problem}")
        typer.echo(f"{damaged} damaged, {len(findings) - damaged} left over" if findings else "all well")
    raise typer.Exit(1 if damaged else 0)


@cache_app.command("rm")
def cache_rm(
    name: Annotated[str, typer.Argument(help="dataset, dataset/encoder or dataset/encoder@key.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Remove feature sets, with a look first; an unfinished one by its folder, dataset/encoder-key."""
    from align_cache.store.catalog import set_folders
    from align_cache.store.verify import remove

    unfinished = cache_dir / "features" / name
    if unfinished in set_folders(cache_dir):  # a folder's own name also reaches sets without a manifest
        doomed = {unfinished: f"features/{name}"}
    else:
        stored = [(entry.folder, _summary(entry)) for entry in _matching(cache_dir, name)]
        doomed = {folder: f"{s['name']}  {s['rows']:,} rows  {byte_size(s['bytes'])}" for folder, s in stored}
    for description in doomed.values():
        typer.echo(description, err=as_json)
    if not yes:
        typer.confirm(f"remove {'these' if len(doomed) > 1 else 'this'}?", abort=True, err=True)
    for folder in doomed:
        remove(folder)
    if as_json:
        typer.echo(json.dumps([str(folder) for folder in doomed]))


def _matching(cache_dir: Path, name: str | None) -> Any:
    from align_cache.errors import CacheError
    from align_cache.store import find

    dataset, _, encoder = (name or "").partition("/")
    stored = find(cache_dir, dataset=dataset or None, encoder=encoder or None)
    if name and not stored:
        known = ", ".join(entry.manifest.name for entry in find(cache_dir)) or "none"
        raise CacheError(f"no feature set {name!r} in {cache_dir}; there are: {known}")
    return stored


def _summary(entry: Any) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "name": manifest.name,
        "modality": manifest.modality,
        "rows": manifest.rows,
        "dim": manifest.dim,
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "untrained": manifest.untrained,
        "folder": str(entry.folder),
    }


def _details(entry: Any) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        **_summary(entry),
        "identity": manifest.identity,
        "counts": dict(manifest.counts),
        "skipped": [list(skipped) for skipped in manifest.skipped],
        "provenance": _provenance(entry.folder),
    }


def _provenance(folder: Path) -> Any:
    path = folder / "provenance.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _note(line: str) -> None:
    from rich.text import Text

    from align_cache.console import stderr

    stderr().print(Text(f"note: {line}", style="dim"), soft_wrap=True)


def _as_json(result: "Extracted") -> dict[str, Any]:
    return {
        "name": f"{result.dataset}/{result.encoder}@{result.key[:8]}",
        "folder": str(result.folder),
        "rows": result.rows,
        "dim": result.dim,
        "status": result.status,
        "untrained": result.untrained,
        "skipped": [list(skipped) for skipped in result.skipped],
        "counts": dict(result.counts),
        "seconds": round(result.seconds, 3),
        "samples_done": result.samples_done,
    }


def _show(results: "list[Extracted]") -> None:
    from rich.table import Table

    from align_cache.console import stdout
    from align_cache.runtime import peak_memory_bytes

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
        name, shape = f"{result.dataset}/{result.encoder}@{result.key[:8]}", f"{result.rows:,} x {result.dim}"
        table.add_row(name, shape, result.status, rate, ", ".join(facts))
    stdout().print(table)
    if any(result.samples_done for result in results):
        _note(f"peak memory {byte_size(peak_memory_bytes())}")
