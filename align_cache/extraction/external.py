"""Bring your own features: an ``.npz`` of rows with ids becomes a feature set like any other."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from align_cache.errors import NonFiniteError, SourceError, UsageError
from align_cache.runtime import now, provenance
from align_cache.splits import canonical_split
from align_cache.store.catalog import is_complete
from align_cache.store.columns import NORM_TOLERANCE
from align_cache.store.layout import FORMAT_VERSION, canonical_json, feature_set_folder
from align_cache.store.manifest import Manifest
from align_cache.store.writer import FeatureSetWriter

_REQUIRED = frozenset({"sample_id", "features"})
_OPTIONAL = frozenset({"group_id", "split", "label", "text"})
# Nothing is computed that a kill could lose, so shards are large: one map serves most files.
_SHARD_ROWS = 65_536
# Twice as strict as the store, so that a row which is kept as it is still passes after rounding.
_KEPT_TOLERANCE = NORM_TOLERANCE / 2
_MAX_EXPANSION = 100
_SMALL_BYTES = 1 << 28  # below which any expansion is harmless


@dataclass(frozen=True)
class Imported:
    """The outcome of an import."""

    folder: Path
    manifest: Manifest
    already_there: bool
    """Whether the same content had been imported before, so that nothing was written."""


def import_features(
    file: Path,
    *,
    dataset: str,
    encoder: str,
    modality: Literal["image", "text"],
    cache_dir: Path = Path("cache"),
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> Imported:
    """Import features that something else computed.

    Parameters
    ----------
    file : Path
        An ``.npz`` with ``sample_id`` (n text) and ``features`` (n, dim) of float16, 32 or 64, and where
        they apply ``group_id`` (n text; required for text), ``split`` (n text), ``label`` (n integers) and
        ``text`` (n text). Class prompts have the class as ``label`` and its name as ``group_id``.
    dataset, encoder : str
        What the feature set is to be called.
    modality : {"image", "text"}
        What the rows are.
    cache_dir : Path
        The cache folder.
    dtype : {"float16", "float32"}
        What to store.
    overwrite : bool
        Write anew even if the same content is there.

    Returns
    -------
    Imported
        ``manifest.counts["normalised"]`` says how many rows were brought to unit norm; the others were
        so already and are kept as they are.

    Raises
    ------
    SourceError
        If the file cannot be read or its arrays do not fit each other.
    NonFiniteError
        If a row holds NaN or infinity; names the sample.
    UsageError
        If an array is missing for the modality.
    CacheError
        If an id or text cannot be stored, or stands twice.
    """
    arrays = _read_arrays(file, modality)
    rows = _rows(arrays, file)
    features = _float32(arrays["features"], file)
    normalised = _normalise(features, rows["sample_id"])
    identity = _identity(rows, features, dataset=dataset, encoder=encoder, modality=modality, dtype=dtype)
    if not overwrite and (manifest := is_complete(cache_dir, identity)) is not None:
        return Imported(feature_set_folder(cache_dir, identity), manifest, already_there=True)
    with FeatureSetWriter(cache_dir, identity, untrained=False, overwrite=overwrite) as writer:
        writer.check_space(features.shape[1])
        for index in writer.missing:
            part = writer.shard_slices[index]
            writer.write_shard(
                index,
                features=features[part],
                counts={"normalised": int(normalised[part].sum())},
                **{name: values[part] for name, values in rows.items()},
            )
        record = {"created": now(), "source": str(file)}
        manifest = writer.finish(provenance() | record)
    return Imported(writer.folder, manifest, already_there=False)


def _read_arrays(file: Path, modality: str) -> dict[str, NDArray[Any]]:
    if not file.is_file():  # the user names it, so that a link to a file is as good
        raise SourceError(f"{file} is no file")
    try:
        with file.open("rb") as handle:  # opened here, because np.load leaves a torn file open
            archive = np.load(handle, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise SourceError(f"{file} holds one array, expected an .npz with sample_id and features")
            _check_names(file, frozenset(archive.files), modality)
            assert archive.zip is not None  # it is open
            _check_expansion(file, archive.zip.infolist())
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise SourceError(
            f"{file} cannot be read as .npz: {error}",
            hint="write it with numpy.savez; ids as text, not as objects",
        ) from error


def _check_expansion(file: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse a bomb. Features hardly shrink, ids and captions tenfold; only made-up data a hundredfold."""
    packed, unpacked = file.stat().st_size, sum(member.file_size for member in members)
    if unpacked > max(_MAX_EXPANSION * packed, _SMALL_BYTES):
        raise SourceError(
            f"{file} expands from {packed / 1e6:,.1f} to {unpacked / 1e6:,.1f} MB, expected at most "
            f"{_MAX_EXPANSION}-fold",
            hint="write it with numpy.savez, which does not compress",
        )


def _check_names(file: Path, names: frozenset[str], modality: str) -> None:
    problems = [f"has no array {name}" for name in sorted(_REQUIRED - names)]
    for name in sorted(names - _REQUIRED - _OPTIONAL):
        nearest = get_close_matches(name, sorted(_REQUIRED | _OPTIONAL), n=1, cutoff=0.5)
        problems.append(f"has an unknown array {name}" + (f" (meant: {nearest[0]}?)" if nearest else ""))
    if modality == "text" and "group_id" not in names:
        problems.append("has no array group_id, which says for each caption the sample_id of its image")
    if problems:
        raise UsageError(f"{file} {'; '.join(problems)}")


def _rows(arrays: Mapping[str, NDArray[Any]], file: Path) -> dict[str, Any]:
    """Return everything but the features as sequences of str or int, one value a row."""
    n = len(arrays["features"]) if arrays["features"].ndim == 2 else 0
    if n == 0:
        raise SourceError(f"features in {file} have shape {arrays['features'].shape}, expected (rows, dim)")
    rows: dict[str, Any] = {}
    for name in sorted(arrays.keys() - {"features"}):
        values, kinds = arrays[name], "iu" if name == "label" else "U"
        if values.shape != (n,) or values.dtype.kind not in kinds:
            expected = "integers" if name == "label" else "text (numpy str)"
            raise SourceError(
                f"{name} in {file} is {values.dtype} {values.shape}, expected {n} values of {expected}"
            )
        rows[name] = values.tolist()
    if "split" in rows:
        rows["split"] = [canonical_split(name) or None for name in rows["split"]]
    return rows


def _float32(features: NDArray[Any], file: Path) -> NDArray[np.float32]:
    if features.dtype.kind != "f":
        raise SourceError(f"features in {file} are {features.dtype}, expected float16, float32 or float64")
    with np.errstate(over="ignore"):  # becomes infinity, which is refused by name next
        return np.ascontiguousarray(features, dtype=np.float32)


def _normalise(features: NDArray[np.float32], ids: list[str]) -> NDArray[np.bool_]:
    """Bring the rows that need it to unit norm, in place; return which did."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise NonFiniteError(f"sample {ids[int(finite.argmin())]!r} has NaN or infinity in its features")
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    if not norms.all():
        raise SourceError(f"sample {ids[int(norms.argmin())]!r} has a zero vector, expected a direction")
    off: NDArray[np.bool_] = np.abs(norms - 1.0) >= _KEPT_TOLERANCE
    features[off] = features[off] / norms[off, None]
    return off


def _identity(
    rows: Mapping[str, Any],
    features: NDArray[np.float32],
    *,
    dataset: str,
    encoder: str,
    modality: str,
    dtype: str,
) -> dict[str, Any]:
    """Return the identity of imported features: the content itself decides it."""
    samples = hashlib.sha256(canonical_json(rows)).hexdigest()
    content = hashlib.sha256(features.astype("<f4", copy=False).tobytes()).hexdigest()
    return {
        "format": FORMAT_VERSION,
        "dataset": {
            "name": dataset,
            "revision": "imported",
            "splits": None,
            "limit": None,
            "samples": samples,
            "rows": len(features),
        },
        "encoder": {"name": encoder, "modality": modality, "imported": True, "features": content},
        "compute": {},
        "storage": {"dtype": dtype, "normalised": True, "shard_rows": _SHARD_ROWS},
        "corruption": None,
    }
