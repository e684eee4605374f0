"""One way in for every format: the run is opened, its rows are chosen, a folder is written and published."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from align_cache.adapters.pair import AdapterPair
from align_cache.adapters.run_adapters import load_pair
from align_cache.errors import CacheError, ExportError, UsageError
from align_cache.exporting.datasets_folder import write_datasets
from align_cache.exporting.description import describe_adapters
from align_cache.exporting.exported_rows import Chosen, choose_rows, first_rows
from align_cache.exporting.faiss_indexes import write_faiss
from align_cache.exporting.npz_file import write_npz
from align_cache.exporting.onnx_graphs import write_onnx
from align_cache.exporting.parquet_files import write_parquet
from align_cache.exporting.safetensors_file import write_safetensors
from align_cache.files import checksum, publish_text, publishing_folder
from align_cache.progress import Progress, no_progress
from align_cache.results import Record, Run, find_run
from align_cache.runtime import now, require_extra, resolve_device
from align_cache.store.layout import slug

Format: TypeAlias = Literal["safetensors", "onnx", "npz", "parquet", "datasets", "faiss"]
FORMATS: tuple[Format, ...] = get_args(Format)
RECORD_NAME = "export.json"
"""What an export says of itself. A folder without it, or with more in it than it lists, is never replaced."""

_OF_EMBEDDINGS = {
    "npz": write_npz,
    "parquet": write_parquet,
    "datasets": write_datasets,
    "faiss": write_faiss,
}
_PACKAGES = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "faiss": ("faiss",)}
"""What a format needs beyond the package's own needs; the extra is called like the format."""
_COMPARED_ROWS = 256
"""Rows of the run's features, of each modality, that a graph is held against torch on."""


def export(
    run: str | Path | Run = "latest",
    *,
    to: Format,
    out: str | Path | None = None,
    cache_dir: str | Path = Path("cache"),
    checkpoint: Literal["best", "last"] = "best",
    dataset: str | None = None,
    split: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = no_progress,
    on_note: Callable[[str], None] | None = None,
) -> Record:
    """Write a run's adapters (``safetensors``, ``onnx``) or its embeddings (all others) for other programs.

    Parameters
    ----------
    run : str, Path or Run
        ``latest``, an id, the head of one, or a run's folder.
    to : {"safetensors", "onnx", "npz", "parquet", "datasets", "faiss"}
        docs/export.md says what each holds.
    out : path, optional
        The folder to write; None: one named after what is exported, in the run's ``exports/``.
    cache_dir : path
        Holds the feature sets. ``safetensors`` reads none, ``onnx`` compares with torch on some of them.
    checkpoint : {"best", "last"}
    dataset : str, optional
        Of the embeddings: one that the run's encoders have seen; None: what the run was trained on.
    split : str, optional
        Of the embeddings: its name, or ``all``; None: test where there is one, else what validated, and of
        another dataset all.
    device : {"auto", "cpu", "cuda", "mps"}
        Where embeddings are made.
    overwrite : bool
        Whether an export that is there is replaced.
    progress : Progress
        Makes the bar; counts rows.
    on_note : callable, optional
        Told what a user should know.

    Returns
    -------
    dict
        What ``export.json`` holds, and the ``folder``.

    Raises
    ------
    AlignCacheError
        An :class:`ExportError` where something else is in the way, or a graph disagrees with torch.

    Examples
    --------
    >>> from align_cache import export
    >>> made = export("latest", to="npz", out="embeddings")
    >>> made["rows"], made["embed_dim"]
    ({'image': 6, 'text': 30}, 768)
    >>> np.load("embeddings/embeddings.npz")["text_embeddings"].shape
    (30, 768)
    """
    cache_dir, out = Path(cache_dir), None if out is None else Path(out)
    _check_asked(to, out, dataset=dataset, split=split)
    found = run if isinstance(run, Run) else find_run(str(run), cache_dir=cache_dir)
    folder = (out or found.folder / "exports" / _name(to, checkpoint, dataset, split)).resolve()
    _check_free(folder, overwrite=overwrite)
    note = on_note or (lambda line: None)
    pair, epoch = load_pair(found, checkpoint)
    described = {
        "format": to,
        "run": found.id,
        "checkpoint": checkpoint,
        "epoch": epoch,
        **describe_adapters(found, pair, cache_dir=cache_dir, note=note),
    }
    with publishing_folder(folder, replace=overwrite) as temporary:
        if to in _OF_EMBEDDINGS:
            chosen = choose_rows(found, cache_dir=cache_dir, dataset=dataset, split=split)
            made = _write_embeddings(temporary, chosen, pair, described, device=device, progress=progress)
            for line in chosen.notes:
                note(line)
        else:
            made = _write_adapters(temporary, found, pair, described, cache_dir=cache_dir, note=note)
        record = {**made, "files": _files(temporary), "created": now()}
        publish_text(temporary / RECORD_NAME, json.dumps(record, indent=2) + "\n")
    return {**record, "folder": str(folder)}


def _check_asked(to: Format, out: Path | None, *, dataset: str | None, split: str | None) -> None:
    """Refuse what cannot be meant or cannot be done, before any work."""
    if to not in FORMATS:
        raise UsageError(f"there is no format {to!r}; there are {', '.join(FORMATS)}")
    if to not in _OF_EMBEDDINGS and (dataset, split) != (None, None):
        raise UsageError(f"{to} holds the adapters, which are of no split and no dataset",
                         hint="leave --split and --dataset out")  # fmt: skip
    if out is not None and out.suffix == f".{to}":
        raise UsageError(f"--out {out} is named like a file, and an export is a folder",
                         hint=f"--out {out.with_suffix('')}")  # fmt: skip
    for package in _PACKAGES.get(to, ()):
        require_extra(package, extra=to, needed_for=f"--to {to}")


def _name(to: Format, checkpoint: str, dataset: str | None, split: str | None) -> str:
    """Name the folder after what is in it and was not left to the defaults."""
    last = "last" if checkpoint == "last" else None
    return "-".join(slug(part) for part in (to, dataset, split, last) if part is not None)


def _check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write where something is; what is no export is never replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if (foreign := _foreign(folder)) is not None:
        raise ExportError(f"align-cache export did not write {foreign}: it is not replaced",
                          hint="--out names another place")  # fmt: skip
    if not overwrite:
        raise ExportError(f"{folder} is there already",
                          hint="--overwrite writes it again, --out names another place")  # fmt: skip


def _foreign(folder: Path) -> Path | None:
    """Return something there that no export wrote, as its record tells; None where there is nothing else."""
    if not folder.is_dir():
        return folder
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        written = {RECORD_NAME, *(each["file"] for each in record["files"])}
    except (OSError, ValueError, LookupError, TypeError):
        return next(folder.iterdir())
    there = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
    return next((path for path in there if path.relative_to(folder).as_posix() not in written), None)


def _write_embeddings(
    folder: Path, chosen: Chosen, pair: AdapterPair, described: Record, *, device: str, progress: Progress
) -> Record:
    where = resolve_device(device)
    tables = chosen.tables(pair.to(where), dim=described["embed_dim"], device=where)
    description = {
        **described,
        "dataset": chosen.image.features.dataset,
        "split": chosen.split,
        "rows": {table.modality: len(table) for table in tables},
    }
    with progress(sum(map(len, tables)), "embedding", "rows") as bar:
        _OF_EMBEDDINGS[described["format"]](folder, tables, description, bar.advance)
    return description


def _write_adapters(
    folder: Path,
    run: Run,
    pair: AdapterPair,
    described: Record,
    *,
    cache_dir: Path,
    note: Callable[[str], None],
) -> Record:
    if described["format"] == "safetensors":
        write_safetensors(folder, pair, described, run.config())
        return described
    try:
        real = first_rows(run, cache_dir=cache_dir, limit=_COMPARED_ROWS)
    except CacheError as error:
        note(f"held against torch on random rows alone: {error.message}")
        real = {}
    return {**described, "compared": write_onnx(folder, pair, described, real)}


def _files(folder: Path) -> list[dict[str, Any]]:
    """List what was written, by its path in the folder."""
    return [
        {
            "file": path.relative_to(folder).as_posix(),
            "bytes": path.stat().st_size,
            "xxh3_128": checksum(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
