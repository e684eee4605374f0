"""Images as people name them on a command line: files, and folders of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from align_cache.encoders.images import decode
from align_cache.errors import SampleError, SourceError
from align_cache.sources.disk import FileTree
from align_cache.sources.folder import IMAGE_SUFFIXES, image_names


class Unreadable(NamedTuple):
    """An image file that was left out."""

    file: str
    reason: str


def image_or_sentence(query: str) -> Path | str:
    """Take what is called like an image and there as a path, and everything else as a sentence.

    Raises
    ------
    SourceError
        If the name of an image is one word and not there: a mistyped path says nothing as a sentence.
    """
    path = Path(query)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return query
    if is_file(path):
        return path
    if len(path.name.split()) > 1:
        return query
    raise SourceError(
        f"{query} is called like an image, and there is no such file",
        hint="name a file that is there, or a sentence that does not end like one",
    )


def is_file(path: Path) -> bool:
    """Say whether a path is a file; what is too long to be one, a sentence or a list, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def image_files(named: Sequence[Path]) -> list[Path]:
    """Return files as they are named, and for a folder the images below it, sorted.

    Raises
    ------
    SourceError
        If one is not there, a folder holds no image, or a link in it leads out of it.
    """
    files: list[Path] = []
    for path in named:
        if is_file(path):
            files.append(path)
        elif _is_folder(path):
            names = image_names(tree := FileTree(path))
            if not names:
                raise SourceError(f"{path} holds no image: no {', '.join(sorted(IMAGE_SUFFIXES))} file")
            tree.check_holds(str(path), names)
            files.extend(path / name for name in names)
        else:
            raise SourceError(
                f"{path} is neither a file nor a folder", hint="name images, or folders of them"
            )
    return files


def readable(files: Sequence[Path]) -> tuple[list[Path], list[Unreadable]]:
    """Decode each image once to tell those that can be read from those that cannot.

    Returns
    -------
    list of Path
        Those that can.
    list of Unreadable
        Those that cannot.
    """
    good, bad = [], []
    for file in files:
        try:
            decode(_content(file), sample_id=str(file))
            good.append(file)
        except SampleError as error:
            bad.append(Unreadable(str(file), error.message))
    return good, bad


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SampleError(f"{file}: the file cannot be read ({error.strerror})") from error
