"""The run folder: what a training run leaves on disk, and how it is found again.

    <runs>/<id>/run.json  config.toml  records.jsonl  results.jsonl  stress.json  pictures.json  report.html
                checkpoints/  snapshots/  figures/  exports/  tensorboard/

Both training and judging write here and the report reads here; nothing in this module imports torch.
"""

import json
import math
import os
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from align_cache.errors import RunError
from align_cache.files import publish_text

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One run, by its folder."""

    folder: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        """Folder of the adapters and the trainer's state."""
        return self.folder / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """Folder of the embeddings that the report draws."""
        return self.folder / "snapshots"

    def info(self) -> Record:
        """Read ``run.json``: what was run, on which features, and how it ended."""
        return _read_object(self.folder / "run.json")

    def update(self, **changes: object) -> None:
        """Change ``run.json`` as a whole."""
        path = self.folder / "run.json"
        before = self.info() if path.exists() else {}
        publish_text(path, _dumps({**before, **changes}, indent=2) + "\n")

    def config(self) -> Record:
        """Read ``config.toml``, every setting resolved.

        Raises
        ------
        RunError
            If it is missing or not TOML.
        """
        path = self.folder / "config.toml"
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{path} is missing; it holds the settings of the run") from None
        except ValueError as error:  # of TOML, or of UTF-8
            raise RunError(f"{path} is not TOML: {error}") from None

    def records(self) -> list[Record]:
        """Read what training logged, in order."""
        return read_lines(self.folder / "records.jsonl")

    def results(self) -> list[Record]:
        """Read what ``align-cache eval`` appended, oldest first."""
        return read_lines(self.folder / "results.jsonl")

    def evaluation(self) -> Record | None:
        """Return the latest evaluation; None before the first."""
        return next((line for line in reversed(self.results()) if line.get("kind") == "evaluation"), None)

    def stress(self) -> Record | None:
        """Read what ``align-cache stress`` measured; None before the first time."""
        path = self.folder / "stress.json"
        return _read_object(path) if path.exists() else None

    def keep_stress(self, record: Mapping[str, object]) -> None:
        """Keep the record of a stress test as a whole."""
        publish_text(self.folder / "stress.json", _dumps(record, indent=1) + "\n")

    def pictures(self) -> Record | None:
        """Read what :meth:`keep_pictures` left; None before the first time."""
        path = self.folder / "pictures.json"
        return _read_object(path) if path.exists() else None

    def keep_pictures(self, images: Mapping[str, str | None], note: str | None) -> None:
        """Keep small pictures as data URLs by ``sample_id`` (None: not to be had), and a note on them."""
        publish_text(self.folder / "pictures.json", _dumps({"note": note, "images": images}, indent=1) + "\n")

    def append_record(self, record: Mapping[str, object]) -> None:
        """Add one line to the training log."""
        append_line(self.folder / "records.jsonl", record)

    def append_result(self, record: Mapping[str, object]) -> None:
        """Add one evaluation."""
        append_line(self.folder / "results.jsonl", record)

    def keep_records(self, *, through_epoch: int) -> None:
        """Drop what was logged after an epoch, so that a resumed run does not log it twice."""
        kept = [record for record in self.records() if record["epoch"] <= through_epoch]
        publish_text(self.folder / "records.jsonl", "".join(_dumps(record) + "\n" for record in kept))


def create_run(runs_folder: Path, cache_dir: Path, *, adapter: str, config_toml: str) -> Run:
    """Make a new run folder with its config, and enter it into the index of the cache."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = _new_folder(runs_folder.resolve(), f"{adapter}-{stamp}")
    for name in ("checkpoints", "snapshots"):
        (folder / name).mkdir()
    publish_text(folder / "config.toml", config_toml)
    index = _index(cache_dir)
    index.parent.mkdir(parents=True, exist_ok=True)
    # Relative where it can be, so that a cache that is moved or copied keeps to its own runs.
    home = index.parent.resolve()
    path = folder.relative_to(home) if folder.is_relative_to(home) else folder
    append_line(index, {"id": folder.name, "path": str(path)})
    return Run(folder)


def _new_folder(parent: Path, head: str) -> Path:
    """Make a folder of a name that is free: a sweep may start hundreds of runs in one second."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = parent / f"{head}-{secrets.token_hex(2)}"
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def list_runs(cache_dir: Path) -> list[Run]:
    """List the runs that were started from this cache and still exist, oldest first."""
    index = _index(cache_dir)
    home = index.parent.resolve()
    folders = [home / entry["path"] for entry in read_lines(index)]
    return [Run(folder) for folder in dict.fromkeys(folders) if (folder / "run.json").is_file()]


def find_run(name: str = "latest", *, cache_dir: Path = Path("cache")) -> Run:
    """Return a run by ``latest``, by its id, by the head of its id, or by its folder.

    Raises
    ------
    RunError
        If there is none, or the head fits several.
    """
    if (Path(name) / "run.json").is_file():
        return Run(Path(name).resolve())
    runs = list_runs(cache_dir)
    if not runs:
        raise RunError(f"no runs in {cache_dir}", hint="train one: align-cache fit")
    if name == "latest":
        return runs[-1]
    matches = [run for run in runs if run.id == name] or [run for run in runs if run.id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(run.id for run in (matches or runs)[-5:])
    found = f"{len(matches)} runs start with {name!r}" if matches else f"no run is called {name!r}"
    raise RunError(f"{found}; the latest: {known}", hint="align-cache runs ls shows all of them")


def _index(cache_dir: Path) -> Path:
    return cache_dir / "runs" / "index.jsonl"


def _read_object(path: Path) -> Record:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {path.parent} is no run, or its start was interrupted") from None
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def read_lines(path: Path) -> list[Record]:
    """Read a file of one JSON object a line; none where there is no file."""
    if not path.exists():
        return []
    # A line without its newline is one that a kill cut short, if need be inside a character.
    *whole, _ = path.read_bytes().split(b"\n")
    try:
        lines = [json.loads(line.decode("utf-8")) for line in whole]
    except ValueError as error:
        raise RunError(f"{path} holds a line that is not JSON: {error}") from None
    if not all(isinstance(line, dict) for line in lines):
        raise RunError(f"{path} holds a line that is no JSON object")
    return lines


def append_line(path: Path, record: Mapping[str, object]) -> None:
    """Add an object to such a file, after the last whole line."""
    with path.open("a+b") as file:
        _drop_torn_line(file)
        file.write((_dumps(record) + "\n").encode("utf-8"))


def _drop_torn_line(file: BinaryIO) -> None:
    """Cut a file back to its last newline: what follows is a line that a kill cut short."""
    if not file.seek(0, os.SEEK_END):
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _dumps(value: Mapping[str, object], indent: int | None = None) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite is absent."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
