"""Commands that use what was aligned: search, embed, zero-shot."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from align_cache.cli.options import DEFAULT_CACHE, CacheDir, Device, Json, print_note

if TYPE_CHECKING:
    from align_cache.use.image_files import Unreadable
    from align_cache.use.model import AlignedModel

RunOption = Annotated[
    str | None, typer.Option("--run", help="A run's id, the head of it, its folder, or latest.")
]
ModelFolder = Annotated[
    str | None, typer.Option("--model", metavar="FOLDER", help="A saved model in place of a run.")
]
Checkpoint = Annotated[Literal["best", "last"] | None, typer.Option(help="Of the run; best if absent.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples in one forward pass.")]
OnError = Annotated[Literal["fail", "skip"], typer.Option(help="fail or skip an unreadable image.")]


def search(
    queries: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SENTENCE|IMAGE]...", help="What exists as an image file is an image."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="An image to search with, whatever it is called; may be repeated."),
    ] = None,
    run: RunOption = None,
    model: ModelFolder = None,
    checkpoint: Checkpoint = None,
    dataset: Annotated[
        str | None, typer.Option(help="In the cache, by the same encoder; what was trained on if absent.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of it; all rows if absent.")] = None,
    k: Annotated[int, typer.Option(min=1, help="How many to find for each query.")] = 10,
    find: Annotated[
        Literal["images", "captions"] | None,
        typer.Option(help="images for sentences and captions for images if absent."),
    ] = None,
    index: Annotated[
        Literal["exact", "faiss"], typer.Option(help="faiss: all embeddings in memory; needs faiss-cpu.")
    ] = "exact",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with small pictures.")
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Find the images or captions of a cached dataset that are nearest to sentences or images."""
    from align_cache.use.image_files import image_or_sentence

    asked = [*map(image_or_sentence, queries or ()), *(image or ())]
    opened = _open_model(run, model, checkpoint, device, cache_dir)
    from align_cache.use.searching import search as run_search

    found = run_search(
        opened,
        asked,
        cache_dir=cache_dir,
        dataset=dataset,
        split=split,
        find=find,
        k=k,
        index=index,
    )
    if html is not None:
        from align_cache.use.search_page import publish_search

        print_note(f"page: {publish_search(found, html)}")
    if as_json:
        typer.echo(json.dumps(found.to_record(), indent=2))
        return
    from align_cache.terminal.console import stdout
    from align_cache.terminal.tables import tables_group
    from align_cache.use.use_tables import images_place, search_tables, where

    place = images_place(found)
    notes = [where(found), *([] if place is None else [f"images below {place}"]), *found.notes]
    stdout().print(tables_group(search_tables(found), untrained=found.untrained, notes=notes))


def embed(
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE|FOLDER]...", help="Files, or folders of them.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.npz", help="Where the embeddings go.")] = Path(
        "embeddings.npz"
    ),
    text: Annotated[
        list[str] | None, typer.Option(metavar="SENTENCE", help="Once for each sentence.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(metavar="FILE", help="A sentence a line.")] = None,
    run: RunOption = None,
    model: ModelFolder = None,
    checkpoint: Checkpoint = None,
    batch_size: BatchSize = 64,
    on_error: OnError = "fail",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    device: Device = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Write the embeddings of images and sentences, in the space of a run, to an .npz file."""
    from align_cache.terminal.console import progress
    from align_cache.use.embedding_file import check_target, embed_to_file
    from align_cache.use.image_files import image_files

    check_target(out, overwrite=overwrite)
    files = image_files(images or [])
    opened = _open_model(run, model, checkpoint, device, cache_dir)
    files, skipped = _readable(files, on_error)
    written = embed_to_file(
        opened,
        out,
        images=files,
        texts=[*(text or ()), *(_lines(texts) if texts is not None else ())],
        batch_size=batch_size,
        overwrite=overwrite,
        progress=progress,
    )
    shapes = {name: list(array.shape) for name, array in written.items() if name.endswith("_embeddings")}
    if as_json:
        left_out = [each._asdict() for each in skipped]
        typer.echo(json.dumps({"file": str(out), "arrays": shapes, "skipped": left_out}, indent=2))
        return
    told = ", ".join(f"{name} {rows:,} x {dim}" for name, (rows, dim) in shapes.items())
    typer.echo(f"{out}: {told}")


def zero_shot(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE|FOLDER...", help="Files, or folders of them.")
    ],
    classes: Annotated[
        str, typer.Option(metavar="NAME,NAME…|FILE", help="Names of the classes, or a file with one a line.")
    ],
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A sentence with {} for the class; once for each."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 5,
    run: RunOption = None,
    model: ModelFolder = None,
    checkpoint: Checkpoint = None,
    batch_size: BatchSize = 64,
    on_error: OnError = "fail",
    device: Device = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Say which of some classes an image is of, by their names alone; nothing is trained."""
    from align_cache.sources.prompts import PHOTO_TEMPLATES
    from align_cache.terminal.console import progress
    from align_cache.use.image_files import image_files, is_file

    names = _lines(Path(classes)) if is_file(Path(classes)) else classes.split(",")
    files = image_files(images)
    opened = _open_model(run, model, checkpoint, device, cache_dir)
    files, skipped = _readable(files, on_error)
    found = opened.zero_shot(
        files,
        names,
        template or PHOTO_TEMPLATES,
        top=top,
        batch_size=batch_size,
        progress=progress,
    )
    from align_cache.use.use_tables import choice_note, choice_record, choice_table

    record = choice_record(opened, files, found, skipped=skipped)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    from align_cache.terminal.console import stdout
    from align_cache.terminal.tables import tables_group

    notes = [choice_note(record), *record["notes"]]
    stdout().print(tables_group([choice_table(record)], untrained=record["untrained"], notes=notes))


def _open_model(
    run: str | None, folder: str | None, checkpoint: Literal["best", "last"] | None, device: str | None,
    cache_dir: Path,
) -> "AlignedModel":  # fmt: skip
    """Open what is to be used: a saved model where one is named, else a run."""
    from align_cache.errors import UsageError
    from align_cache.results import find_run

    if folder is not None and (run is not None or checkpoint is not None):
        raise UsageError("--model is a model by itself: --run and --checkpoint are of runs")
    found = find_run(run or "latest", cache_dir=cache_dir) if folder is None else None
    from align_cache.use.model import AlignedModel

    on: Any = device or "auto"  # checked where it is resolved
    if found is not None:
        return AlignedModel.from_run(found, cache_dir=cache_dir, checkpoint=checkpoint or "best", device=on)
    assert folder is not None  # or a run was found
    return AlignedModel.from_pretrained(folder, device=on)


def _readable(files: list[Path], on_error: str) -> "tuple[list[Path], list[Unreadable]]":
    """Keep, where ``skip`` asks for it, the image files that can be read; say which cannot."""
    from align_cache.errors import SourceError
    from align_cache.use.image_files import readable

    if on_error == "fail":
        return files, []
    good, bad = readable(files)
    for each in bad:
        print_note(f"skipped: {each.reason}")
    if bad and not good:
        raise SourceError(f"none of {len(bad)} images can be read")
    return good, bad


def _lines(file: Path) -> list[str]:
    """Read a text file of one thing a line; empty lines are passed over."""
    from align_cache.sources.annotations import read_text

    # Not splitlines(): a sentence may hold a form feed or a line separator of its own.
    return [line.strip() for line in read_text(file).split("\n") if line.strip()]
