"""The table of sources: every dataset that extraction can read, by name."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from align_cache.errors import SourceError, UsageError
from align_cache.sources import cifar10, flickr, hub
from align_cache.sources.base import Source
from align_cache.sources.cifar10 import open_cifar10
from align_cache.sources.coco import open_coco
from align_cache.sources.colours12 import open_colours12
from align_cache.sources.flickr import open_flickr8k, open_flickr30k
from align_cache.sources.folder import open_folder
from align_cache.sources.shapes import open_shapes
from align_cache.sources.shapes10 import open_shapes10

_TABLE: Mapping[str, tuple[str, Callable[..., Source]]] = {
    "flickr30k": ("31,783 photographs, five captions each; Karpathy's split", open_flickr30k),
    "flickr8k": ("8,000 photographs, five captions each", open_flickr8k),
    "coco": ("123,287 photographs, five captions each; from disk only", open_coco),
    "cifar10": ("60,000 pictures of 32 x 32 in ten classes", open_cifar10),
    "folder": (
        "your own images, with captions or labels in a CSV or JSONL file, or a folder per class",
        open_folder,
    ),
    "shapes": ("drawn scenes with five captions each, made on demand", open_shapes),
    "shapes10": ("drawn 32 x 32 pictures of ten shapes: the probe set of shapes", open_shapes10),
    "colours12": ("drawn scenes of one object in twelve colours: for zero-shot", open_colours12),
}

SOURCES: Mapping[str, str] = {name: description for name, (description, _) in _TABLE.items()}
"""Name and one-line description of each source."""


HUB_COPIES: Mapping[str, str] = {**flickr.REPOSITORIES, "cifar10": cifar10.REPOSITORY}
"""Where the hub has a copy, by the name of the dataset."""


def missing_copy(name: str) -> str | None:
    """Return the command that fetches the hub's copy of a dataset; None if it was fetched or there is none.

    The hub is not asked.
    """
    repository = HUB_COPIES.get(name)
    if repository is None or hub.fetched_snapshot(repository, repo_type="dataset", needed=["*.parquet"]):
        return None
    return hub.fetch_command(repository, repo_type="dataset", allow_patterns=["*.parquet"])


def takes_data_dir(name: str) -> bool:
    """Say whether a source lies somewhere, on the hub or on disk; the others are drawn on demand."""
    return "data_dir" in inspect.signature(_TABLE[name][1]).parameters


def open_source(
    name: str,
    *,
    data_dir: Path | None = None,
    revision: str | None = None,
    options: Mapping[str, object] | None = None,
) -> Source:
    """Open a dataset by name; every path, id and caption is checked, no image is decoded.

    Parameters
    ----------
    name : str
        One of ``SOURCES``.
    data_dir : Path, optional
        A copy on disk in any of the layouts of docs/datasets.md; None takes the hub's copy.
    revision : str, optional
        Branch, tag or commit of the hub's copy; None is the default branch.
    options : mapping, optional
        The source's own settings: the keyword arguments of its ``open_…`` function.

    Raises
    ------
    UsageError
        For a name, an option or a combination that does not exist.
    OfflineError
        If the hub's copy is wanted, was not fetched before and the hub cannot be reached.
    SourceError
        If the data is missing, damaged or not laid out as expected.
    """
    if name not in _TABLE:
        raise UsageError(f"there is no dataset {name!r}", hint=_nearest(name, _TABLE, "the datasets are"))
    opener = _TABLE[name][1]
    accepted = inspect.signature(opener).parameters
    origin = _checked_origin(name, accepted, data_dir, revision)
    return opener(**origin, **_checked_options(name, accepted, options or {}))


def _checked_origin(
    name: str, accepted: Mapping[str, object], data_dir: Path | None, revision: str | None
) -> dict[str, Path | str]:
    given = {"data_dir": data_dir, "revision": revision}
    origin = {key: value for key, value in given.items() if value is not None}
    for key in origin:
        if key not in accepted:
            raise UsageError(f"{name} takes no --{key.replace('_', '-')}")
    if len(origin) > 1:
        raise UsageError(f"{name}: --revision is of the hub's copy, and --data-dir names one on disk")
    if data_dir is not None and not data_dir.is_dir():
        raise SourceError(
            f"{name}: {data_dir} is not a folder", hint="--data-dir names the folder that holds the dataset"
        )
    return origin


def _checked_options(
    name: str, accepted: Mapping[str, inspect.Parameter], options: Mapping[str, object]
) -> Mapping[str, object]:
    settings = {key: accepted[key] for key in accepted if key not in ("data_dir", "revision")}
    for key, value in options.items():
        if key not in settings:
            raise UsageError(f"{name} has no option {key!r}", hint=_nearest(key, settings, "its options are"))
        wanted = type(settings[key].default)
        if type(value) is not wanted:
            raise UsageError(f"{name}: option {key} is {value!r}, wanted {wanted.__name__}")
    return options


def _nearest(wrong: str, known: Mapping[str, object], introduction: str) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}{introduction} {', '.join(known) or 'none'}"
