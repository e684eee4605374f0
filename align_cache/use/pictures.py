"""The pictures of a run: its dataset opened again, or one that is named, and its gallery's kept with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from align_cache.errors import AlignCacheError, UsageError
from align_cache.extraction.origin import recorded_origin, reopen_source
from align_cache.results import Run
from align_cache.sources import SOURCES, open_source, takes_data_dir
from align_cache.sources.base import Source
from align_cache.store import find
from align_cache.store.catalog import StoredSet
from align_cache.use.small_pictures import thumbnails

_GIVE_FOLDER = "--dataset NAME --data-dir FOLDER of report and view reads them from there"


@dataclass(frozen=True, slots=True)
class Collected:
    """What :func:`collect_pictures` left in the run folder."""

    found: int
    wanted: int
    note: str | None
    """Where the pictures are from, or why there are none; None where nothing has to be said."""


def collect_pictures(
    run: Run,
    *,
    cache_dir: Path = Path("cache"),
    dataset: str | None = None,
    data_dir: Path | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Collected:
    """Keep a small picture of each image in a run's gallery; what is kept already is not read again.

    The dataset is opened as it was for the extraction, and used only if it still holds the very same
    images; nothing is fetched. A dataset that is named, or a folder, is used as it is and matched by id.

    Parameters
    ----------
    run : Run
    cache_dir : Path
        Holds the feature set that says where its images came from.
    dataset : str, optional
        One of ``sources.SOURCES``, in place of the recorded one.
    data_dir : Path, optional
        Where that dataset lies, in place of the recorded folder.
    on_note : callable, optional
        Told before the dataset is opened.

    Returns
    -------
    Collected

    Raises
    ------
    UsageError, SourceError
        If ``dataset`` or ``data_dir`` was given and cannot be read. What is only recorded and cannot be read
        becomes the note.
    RunError
        If the run folder is damaged.
    """
    wanted = _wanted(run)
    given = dataset is not None or data_dir is not None
    if not given and (kept := run.pictures()) is not None and _serves(kept["images"], wanted):
        return _collected(kept["images"], wanted, kept["note"])
    if not wanted:
        return Collected(0, 0, None)
    source, remark = open_pictures(
        run, cache_dir=cache_dir, dataset=dataset, data_dir=data_dir, on_note=on_note
    )
    images, problems = ({}, ()) if source is None else thumbnails(source, wanted)
    note = "; ".join(part for part in (remark, *problems) if part) or None
    run.keep_pictures({sample_id: images.get(sample_id) for sample_id in sorted(wanted)}, note)
    return _collected(images, wanted, note)


def open_pictures(
    run: Run,
    *,
    cache_dir: Path,
    dataset: str | None = None,
    data_dir: Path | None = None,
    on_note: Callable[[str], None] | None = None,
) -> tuple[Source | None, str | None]:
    """Open the dataset whose images a run was trained on, and say what is to be said of it.

    Parameters and errors are those of :func:`collect_pictures`.

    Returns
    -------
    Source or None
        None where what was recorded cannot be opened.
    str or None
        Where the images are from, or why there are none; None where nothing has to be said.
    """
    say = on_note or (lambda line: None)
    if dataset is None and data_dir is None:
        return _recorded(run, cache_dir, say)
    return _given(run, cache_dir, dataset, data_dir, say)


def _serves(images: Mapping[str, str | None], wanted: set[str]) -> bool:
    """Say whether a look at the data has given all that it can: another may find what none found."""
    return wanted <= images.keys() and any(images.values())


def _collected(images: Mapping[str, str | None], wanted: set[str], note: str | None) -> Collected:
    return Collected(sum(images.get(sample_id) is not None for sample_id in wanted), len(wanted), note)


def _wanted(run: Run) -> set[str]:
    gallery = (run.evaluation() or {}).get("gallery") or {"queries": []}
    return {image["image_id"] for query in gallery["queries"] for image in (query["image"], *query["images"])}


def _stored(run: Run, cache_dir: Path) -> StoredSet | None:
    info = run.info()
    name = f"{info['image']['encoder']}@{info['image']['key8']}"
    return next(iter(find(cache_dir, dataset=info["dataset"], encoder=name)), None)


def _given(
    run: Run, cache_dir: Path, dataset: str | None, data_dir: Path | None, say: Callable[[str], None]
) -> tuple[Source, str]:
    """Open what the user names; ids decide which picture is whose."""
    stored = _stored(run, cache_dir)
    origin = None if stored is None else recorded_origin(stored)
    name = dataset or (None if origin is None else origin.name)
    if name is None:
        raise UsageError(
            f"the features of {run.id} do not say how their images were read",
            hint=f"name the layout beside the folder: --dataset {', '.join(SOURCES)}",
        )
    if data_dir is None and takes_data_dir(name):
        raise UsageError(f"pictures of {name} lie in a folder", hint="add --data-dir FOLDER")
    options = origin.options if origin and name == origin.name else None
    say(f"reading pictures of {name}")
    source = open_source(name, data_dir=data_dir, options=options)
    return source, f"from {data_dir or name}, matched by id"


def _recorded(run: Run, cache_dir: Path, say: Callable[[str], None]) -> tuple[Source | None, str | None]:
    """Open what the features were extracted from, or say why that cannot be, and what to do."""
    stored = _stored(run, cache_dir)
    if stored is None:
        return None, "the feature set of the images is not in this cache"
    source, reason = recorded_pictures(stored, on_note=say)
    return source, None if reason is None else f"{reason}; {_GIVE_FOLDER}"


def recorded_pictures(
    stored: StoredSet, *, on_note: Callable[[str], None] | None = None
) -> tuple[Source | None, str | None]:
    """Open the images that a feature set was extracted from, if they are still the same; nothing is fetched.

    Parameters
    ----------
    stored : StoredSet
        Of images.
    on_note : callable, optional
        Told before the dataset is opened.

    Returns
    -------
    Source or None
        The dataset as it was opened for the extraction.
    str or None
        Why it cannot be opened; None where it was.
    """
    origin = recorded_origin(stored)
    if origin is None:
        return None, f"{stored.manifest.name} does not say how its images were read"
    if origin.from_hub:
        return None, "the images came from the hub, which is not asked for pictures"
    if on_note is not None:
        on_note(f"reading pictures of {origin.name}")
    try:
        return reopen_source(stored, origin), None
    except AlignCacheError as error:
        return None, error.message
