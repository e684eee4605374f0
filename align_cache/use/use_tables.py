"""What a search found, and what zero-shot chose, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align_cache.reporting.tables import Table
from align_cache.reporting.wording import count, number, percent
from align_cache.results import Record
from align_cache.use.found import Found, Hit
from align_cache.use.searching import other_notes, untrained_encoders

if TYPE_CHECKING:
    from align_cache.use.class_choice import ClassChoice
    from align_cache.use.image_files import Unreadable
    from align_cache.use.model import AlignedModel


def search_tables(found: Found) -> list[Table]:
    """Return a table for each query: what was found, nearest first."""
    what = ("image", "first caption") if found.find == "images" else ("caption", "words")
    columns = ("rank", "similarity", *what)
    return [
        Table(answer.shown, columns, tuple(map(_hit_row, answer.hits)), label_columns=len(columns))
        for answer in found.answers
    ]


def where(found: Found) -> str:
    """Say what was searched, and with what."""
    part = "" if found.split is None else f", split {found.split}"
    return f"{count(found.n_candidates)} {found.find} of {found.features}{part}, with {found.model}"


def images_place(found: Found) -> str | None:
    """Return the folder below which the images that were found lie; None where they are no files."""
    files = ((hit.file, hit.image_id) for answer in found.answers for hit in answer.hits)
    return next((str(file).removesuffix(str(name)) for file, name in files if file is not None), None)


def _hit_row(hit: Hit) -> tuple[str, ...]:
    return str(hit.rank), number(hit.similarity, 3), hit.sample_id, hit.caption or ""


def choice_record(
    model: AlignedModel,
    files: Sequence[Path],
    choice: ClassChoice,
    *,
    skipped: Sequence[Unreadable] = (),
) -> Record:
    """Return what zero-shot chose for image files as JSON can hold it.

    Parameters
    ----------
    model : AlignedModel
    files : sequence of Path
        n of them.
    choice : ClassChoice
        Of n images.
    skipped : sequence of Unreadable
        Files that were left out.
    """
    images = [
        {
            "file": str(file),
            "top": [
                {"class": choice.names[place], "probability": float(share)}
                for place, share in zip(places, shares, strict=True)
            ],
        }
        for file, places, shares in zip(files, choice.classes, choice.probabilities, strict=True)
    ]
    return {
        "model": model.source,
        "temperature": model.temperature,
        "classes": list(choice.names),
        "untrained": list(untrained_encoders(model)),
        "notes": list(other_notes(model)),
        "images": images,
        "skipped": [each._asdict() for each in skipped],
    }


def choice_table(record: Record) -> Table:
    """Return a line for each image with its nearest classes; ``record`` is of :func:`choice_record`."""
    shown = [
        [f"{each['class']} {percent(each['probability'])}" for each in image["top"]]
        for image in record["images"]
    ]
    n_top = max(map(len, shown), default=0)
    rows = tuple((image["file"], *top) for image, top in zip(record["images"], shown, strict=True))
    columns = ("image", *(str(rank) for rank in range(1, n_top + 1)))
    return Table("Nearest classes", columns, rows, label_columns=len(columns))


def choice_note(record: Record) -> str:
    """Say what the probabilities are."""
    n_classes = len(record["classes"])
    return (
        f"softmax of cosine / {number(record['temperature'], 3)} over {n_classes} classes, chance "
        f"{percent(1 / n_classes)}, not calibrated; with {record['model']}"
    )
