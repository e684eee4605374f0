"""What lies in a folder, listed once: the plain files below it, their sizes, and which links lead out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from align_cache.errors import SourceError
from align_cache.files import checksum

_UNCOMPRESSED = frozenset({".bmp", ".pbm", ".pgm", ".ppm", ".pnm", ".tif", ".tiff", ".npy"})


class FileTree:
    """The regular files below a folder by relative path, with forward slashes.

    The folder itself may be a link. A link to a file below it counts as the file; a link to anything
    outside is remembered and refused when it is asked for; links to folders are not followed.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise SourceError(f"{root} is not a folder")
        self.root = root.resolve()
        self._sizes: dict[str, int] = {}
        self._outside: set[str] = set()
        for name, entry in _walk(self.root, PurePosixPath()):
            self._admit(name, entry)

    def names(self) -> list[str]:
        """Return every file's path, and every link's that leads out, sorted."""
        return sorted({*self._sizes, *self._outside})

    def fingerprint(self, name: str) -> str:
        """Return what stands for a file's content: its size, and a checksum where editing keeps the size.

        Compressed formats change their size with nearly every change of content; uncompressed ones never do.
        """
        size = f"{self._sizes[name]} bytes"
        if PurePosixPath(name).suffix.lower() not in _UNCOMPRESSED:
            return size
        return f"{size}, xxh3_128 {checksum(self.root / name)}"

    def check_holds(self, dataset: str, names: Sequence[str]) -> None:
        """Refuse unless every name is a file here.

        Raises
        ------
        SourceError
            With the number of names that are missing or lead out, and the first of them.
        """
        if leading_out := [name for name in names if name in self._outside]:
            raise SourceError(
                f"{dataset}: {len(leading_out)} images are links that lead out of {self.root}, "
                f"the first is {leading_out[0]}",
                hint="put the files themselves into the folder",
            )
        if missing := [name for name in names if name not in self._sizes]:
            raise SourceError(
                f"{dataset}: {len(missing)} of {len(names)} listed images are not in {self.root}, "
                f"the first is {missing[0]}",
                hint="complete the folder, or list only the images that it holds",
            )

    def _admit(self, name: str, entry: "os.DirEntry[str]") -> None:
        if entry.is_file(follow_symlinks=False):
            self._sizes[name] = entry.stat(follow_symlinks=False).st_size
        elif entry.is_symlink():
            target = Path(entry.path).resolve()
            if not target.is_relative_to(self.root):
                self._outside.add(name)
            elif target.is_file():
                self._sizes[name] = target.stat().st_size


def first_holding(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """Return the first folder that holds at least one of the files; None where none does."""
    wanted = list(names)
    for folder in folders:
        if folder.is_dir() and any((folder / name).is_file() for name in wanted):
            return folder
    return None


def _walk(folder: Path, prefix: PurePosixPath) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), prefix / entry.name)
            else:
                yield str(prefix / entry.name), entry
