"""Finding feature sets by what people call them: dataset, encoder, and the head of the key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from align_cache.corruption import parse_noise
from align_cache.errors import CacheError, CorruptError, UsageError
from align_cache.store.layout import (
    MANIFEST_NAME,
    Identity,
    differences,
    feature_set_folder,
    identity_key,
)
from align_cache.store.manifest import Manifest, read_manifest
from align_cache.store.provenance import read_provenance
from align_cache.store.reader import FeatureSet

_SHOWN_DIFFERENCES = 6
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class StoredSet:
    """A finished feature set: where it lies and what its manifest says."""

    folder: Path
    manifest: Manifest

    def provenance(self) -> dict[str, Any] | None:
        """Read what was recorded of how it came about; None where that is lost. Nothing may depend on it."""
        try:
            return read_provenance(self.folder, key=self.manifest.key)
        except CorruptError:
            return None


def find(cache_dir: Path, *, dataset: str | None = None, encoder: str | None = None) -> list[StoredSet]:
    """Return the finished feature sets of a cache, by name.

    Sets whose manifest cannot be read are left out here and listed by ``align-cache cache verify``.

    Parameters
    ----------
    cache_dir : Path
        The cache folder; one that does not exist has no feature sets.
    dataset : str, optional
        Its exact name.
    encoder : str, optional
        Its exact name, which means the set without noise; the name with the noise, ``resnet18+blur:3``; or
        any of the two with ``@`` and a head of the key.
    """
    found = [
        stored
        for stored in _readable(cache_dir)
        if (dataset is None or stored.manifest.dataset == dataset)
        and (encoder is None or _is_called(stored.manifest, encoder))
    ]
    return sorted(found, key=lambda stored: stored.manifest.name)


def open_feature_set(
    dataset: str, encoder: str, *, cache_dir: Path = Path("cache"), verify: bool = True
) -> FeatureSet:
    """Open the one feature set of a dataset and an encoder.

    Parameters
    ----------
    dataset, encoder : str
        As :func:`find` takes them.
    cache_dir : Path
        The cache folder.
    verify : bool
        As :meth:`FeatureSet.open` takes it.

    Raises
    ------
    CorruptError
        If the set is damaged.
    CacheError
        If there is no such set (the nearest names are given) or there are several (what differs is given).

    Examples
    --------
    >>> from align_cache import open_feature_set
    >>> captions = open_feature_set("shapes", "small-text")
    >>> captions.rows, captions.dim, captions.untrained
    (300, 256, True)
    >>> print(captions.sample_ids[7], "of", captions.group_ids[7])
    scene-000001#2 of scene-000001
    """
    return FeatureSet.open(find_one(cache_dir, dataset, encoder).folder, verify=verify)


def find_one(cache_dir: Path, dataset: str, encoder: str) -> StoredSet:
    """Return the one feature set of a dataset and an encoder, unopened: what its manifest says is enough.

    Raises
    ------
    CacheError
        As :func:`open_feature_set`.
    """
    found = find(cache_dir, dataset=dataset, encoder=encoder)
    if not found:
        raise _absent(cache_dir, dataset, encoder)
    if len(found) > 1:
        raise _ambiguous(dataset, encoder, [stored.manifest for stored in found])
    return found[0]


def is_complete(cache_dir: Path, identity: Identity) -> Manifest | None:
    """Return the manifest if every file is there and whole, else None: extraction has work to do.

    The checksums are read too (2 to 3 GB/s), so that the command which refuses a damaged set and the
    command which mends it agree on what is damaged.

    Raises
    ------
    CacheError
        If a newer align-cache wrote the set.
    """
    folder = feature_set_folder(cache_dir, identity)
    if not (folder / MANIFEST_NAME).exists():
        return None
    try:
        manifest = FeatureSet.open(folder).manifest
        read_provenance(folder, key=manifest.key)
    except CorruptError:
        return None
    return manifest if manifest.key == identity_key(identity) else None


def set_folders(cache_dir: Path) -> list[Path]:
    """Return every folder of a cache where a feature set is expected, finished or not."""
    return sorted(path for path in cache_dir.glob("features/*/*") if path.is_dir())


def _readable(cache_dir: Path) -> Iterator[StoredSet]:
    for folder in set_folders(cache_dir):
        try:
            yield StoredSet(folder, read_manifest(folder))
        except CacheError:
            continue


def _is_called(manifest: Manifest, encoder: str) -> bool:
    if encoder == manifest.variant:
        return True
    name, at, head = encoder.rpartition("@")
    return bool(
        at and head and name in (manifest.encoder, manifest.variant) and manifest.key.startswith(head)
    )


def _absent(cache_dir: Path, dataset: str, encoder: str) -> CacheError:
    manifests = [stored.manifest for stored in _readable(cache_dir)]
    datasets = sorted({manifest.dataset for manifest in manifests})
    encoders = sorted({manifest.variant for manifest in manifests if manifest.dataset == dataset})
    name = _without_key(encoder)
    wanted, known = (name, encoders) if encoders else (dataset, datasets)
    nearest = get_close_matches(wanted, known, n=3, cutoff=0.5) or known[:5]
    there = f"there are {', '.join(nearest)}" if nearest else "the cache has no finished feature sets"
    hidden = sum((folder / MANIFEST_NAME).exists() for folder in set_folders(cache_dir)) - len(manifests)
    unread = f"; {hidden} cannot be read (align-cache cache verify)" if hidden else ""
    imported = any("imported" in m.identity["encoder"] for m in manifests if m.dataset == dataset)
    texts = sorted(m.encoder for m in manifests if (m.dataset, m.modality) == (dataset, "text"))
    command = "import FILE.npz --modality image|text" if imported else "extract"
    if imported and texts and name == "tokens":
        command = f"extract --captions-of {dataset}/{texts[0]}"
    return CacheError(
        f"no feature set of {dataset} by {encoder} in {cache_dir}: {there}{unread}",
        hint=f"align-cache {command} --dataset {dataset} --encoder {_flags(name)}",
    )


def _flags(variant: str) -> str:
    """Give the flags that make a set of that name; what follows ``+`` is noise where it reads as such."""
    name, _, text = variant.rpartition("+")
    try:
        noise = parse_noise(text)
    except UsageError:
        return variant
    flag = "--image-noise" if noise.modality == "image" else "--caption-noise"
    return f"{name} {flag} {noise}"


def _without_key(encoder: str) -> str:
    """Take ``@`` and the head of a key off a name; ``hf:owner/name@main`` is all name."""
    name, at, head = encoder.rpartition("@")
    return name if at and not head.strip("0123456789abcdef") else encoder


def _ambiguous(dataset: str, encoder: str, manifests: Sequence[Manifest]) -> CacheError:
    first, *others = manifests
    lines = [f"{first.variant}@{first.key8}"]
    for manifest in others:
        differing = differences(first.identity, manifest.identity)
        shown = [f"{path} {_short(b)} (not {_short(a)})" for path, a, b in differing[:_SHOWN_DIFFERENCES]]
        lines.append(f"{manifest.variant}@{manifest.key8}: {', '.join(shown)}")
    return CacheError(
        f"{len(manifests)} feature sets of {dataset} answer to {encoder}, expected one",
        hint="name one of them:\n    " + "\n    ".join(lines),
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
