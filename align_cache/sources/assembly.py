"""From what a layout lists to a checked source: names, files, captions, and what there is to say of them."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from align_cache.errors import SampleError, SourceError
from align_cache.sources.base import CaptionSample, ImageSample, Source
from align_cache.sources.disk import FileTree

LOCAL = "local"
"""The revision of a copy on disk: its content is in the fingerprints, not in a name."""


@dataclass(slots=True)
class Record:
    """One image as a layout lists it; nothing is checked yet."""

    name: str
    captions: list[object] = field(default_factory=list)
    split: str | None = None
    label: int | None = None


def assemble(
    name: str,
    records: Iterable[Record],
    root: Path,
    *,
    notes: Sequence[str] = (),
    label_names: Sequence[str] = (),
) -> Source:
    """Build a source of image files, sorted by name, after every check that needs no decoding.

    Parameters
    ----------
    name : str
        The dataset.
    records : iterable of Record
        One per image; names are relative to ``root``, with forward slashes.
    root : Path
        The folder that holds the images; nothing outside it is read.
    notes, label_names : sequence of str

    Raises
    ------
    SourceError
        For a name that leads out of the folder, a name listed twice, a missing file, labels for some only.
    SampleError
        For a caption that is no text.
    """
    ordered = sorted(records, key=lambda record: record.name)
    if not ordered:
        raise SourceError(f"{name}: no images are listed for {root}")
    _check_names(name, [record.name for record in ordered])
    _check_labels(name, ordered)
    tree = FileTree(root)
    tree.check_holds(name, [record.name for record in ordered])
    captions, caption_notes = checked_captions(ordered)
    names = tuple(record.name for record in ordered)
    images = tuple(
        ImageSample(record.name, tree.fingerprint(record.name), record.label, record.split)
        for record in ordered
    )

    def read_image(index: int) -> bytes:
        try:
            return (tree.root / names[index]).read_bytes()
        except OSError as error:
            raise SampleError(f"{names[index]}: cannot be read: {error.strerror}") from error

    said = (*notes, *caption_notes)
    return Source(name, LOCAL, images, captions, read_image, tuple(label_names), said, root=tree.root)


def checked_captions(records: Iterable[Record]) -> tuple[tuple[CaptionSample, ...], tuple[str, ...]]:
    """Return the captions in order, ids ``name#i``, outer white space removed, and the notes about them.

    Raises
    ------
    SampleError
        For a caption that is missing, NaN, bytes or not encodable; names its id.
    """
    captions = tuple(
        CaptionSample(caption_id, record.name, _text(text, caption_id), record.split)
        for record in records
        for i, text in enumerate(record.captions)
        if (caption_id := f"{record.name}#{i}")
    )
    notes = []
    if empty := sum(not caption.text for caption in captions):
        notes.append(f"{empty} of {len(captions)} captions are empty; they are kept")
    first_group: dict[str, str] = {}
    shared = {
        caption.text
        for caption in captions
        if first_group.setdefault(caption.text, caption.group_id) != caption.group_id
    }
    shared.discard("")
    if shared:
        notes.append(f"{len(shared)} captions stand with more than one image each; that caps R@1")
    return captions, tuple(notes)


def merge(into: dict[str, Record], record: Record, *, where: str) -> None:
    """Add a record to those read before; captions accumulate, split and label must agree.

    Raises
    ------
    SourceError
        For an image in two splits or with two labels.
    """
    known = into.setdefault(record.name, Record(record.name))
    known.captions += record.captions
    if None not in (known.split, record.split) and known.split != record.split:
        raise SourceError(f"{where}: {record.name} stands in two splits, {known.split} and {record.split}")
    if None not in (known.label, record.label) and known.label != record.label:
        raise SourceError(f"{where}: {record.name} has two labels, {known.label} and {record.label}")
    known.split = known.split or record.split
    known.label = record.label if known.label is None else known.label


def _check_names(dataset: str, names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise SourceError(
            f"{dataset}: {len(twice)} images are listed more than once, the first is {twice[0]!r}"
        )
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name or {"\\", "\0"} & set(name):
            raise SourceError(f"{dataset}: {name!r} is not a plain path below the image folder")
        if not _is_utf8(name):
            raise SourceError(f"{dataset}: the file name {name!r} is not UTF-8", hint="rename the file")


def _check_labels(dataset: str, records: Sequence[Record]) -> None:
    """Refuse labels for some images only: a feature set has a label in every row or in none."""
    without = [record.name for record in records if record.label is None]
    if without and len(without) < len(records):
        raise SourceError(
            f"{dataset}: {len(without)} of {len(records)} images have no label, the first is {without[0]}",
            hint="label all of them or none; without a table the folder an image lies in is its label",
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _text(value: object, caption_id: str) -> str:
    if not isinstance(value, str):
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        found = "is missing (None or NaN)" if missing else f"is {type(value).__name__}, not text"
        raise SampleError(f"caption {caption_id} {found}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SampleError(
            f"caption {caption_id} holds half a surrogate pair at character {error.start}"
        ) from error
    return value.strip()
