"""Commands that look after the feature sets on disk: ls, info, verify, rm."""

import json
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from align_cache.cli.options import DEFAULT_CACHE, CacheDir, Json
from align_cache.reporting.wording import byte_size

cache_app = typer.Typer(no_args_is_help=True, help="Look after the feature sets on disk.")

SetName = Annotated[
    str | None, typer.Argument(metavar="[SET]", help="dataset, dataset/encoder or dataset/encoder@key.")
]


@cache_app.command("ls")
def cache_ls(cache_dir: CacheDir = DEFAULT_CACHE, as_json: Json = False) -> None:
    """List the finished feature sets."""
    from align_cache.store import find

    stored = find(cache_dir)
    if as_json:
        typer.echo(json.dumps([_summary(entry) for entry in stored], indent=2))
        return
    from rich.table import Table

    from align_cache.terminal.console import stdout

    table = Table("set", "modality", "rows", "dim", "size", "", box=None, pad_edge=False, header_style="bold")
    for row in map(_summary, stored):
        size, flag = byte_size(row["bytes"]), "untrained" if row["untrained"] else ""
        table.add_row(row["name"], row["modality"], f"{row['rows']:,}", row["width"], size, flag)
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
        typer.echo(f"{row['name']}  {row['rows']:,} x {row['width']}  {byte_size(row['bytes'])}")
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
        known = [entry.manifest.name for entry in find(cache_dir)]
        near = ", ".join(get_close_matches(name, known, n=5, cutoff=0.3) or known[:5]) or "none"
        raise CacheError(
            f"no feature set {name!r} in {cache_dir}; there are {len(known)}, the nearest: {near}"
        )
    return stored


def _summary(entry: Any) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "name": manifest.name,
        "modality": manifest.modality,
        "noise": manifest.noise,
        "rows": manifest.rows,
        "dim": manifest.dim,
        "width": manifest.width,
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
        "provenance": entry.provenance(),
    }
