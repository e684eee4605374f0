"""One shard of a finished feature set, opened and held against what the manifest says of it."""

from pathlib import Path

from align_cache.errors import CorruptError
from align_cache.files import is_plain_file
from align_cache.store.layout import shard_slice
from align_cache.store.manifest import Manifest, ShardEntry
from align_cache.store.shard import Shard, open_shard
from align_cache.store.tokens import check_stored_tokens


def open_entry(folder: Path, manifest: Manifest, index: int, *, verify: bool = True) -> Shard:
    """Open one shard and hold it against what the manifest says of it.

    Parameters
    ----------
    folder, manifest
        The feature set's.
    index : int
        The shard's place.
    verify : bool
        Whether to read its rows: the checksum, and of token ids that they are in the vocabulary.

    Raises
    ------
    CorruptError
        Naming the file and what is wrong with it.
    """
    entry: ShardEntry = manifest.shards[index]
    path, rows = folder / entry.file, shard_slice(manifest.structure, index)
    if is_plain_file(path) and (size := path.stat().st_size) != entry.bytes:
        raise CorruptError(f"{path} has {size:,} bytes, expected {entry.bytes:,}")
    shard = open_shard(path, verify=verify)
    if shard.xxh3_128 != entry.xxh3_128:
        raise CorruptError(f"{path} is another shard than the one that was published: its checksum differs")
    shard.require(
        key=manifest.key,
        index=index,
        dtype=manifest.structure.storage.dtype,
        samples=rows.stop - rows.start,
    )
    if shard.features.shape != (entry.rows, manifest.dim):
        raise CorruptError(
            f"features in {path} have shape {shard.features.shape}, expected {(entry.rows, manifest.dim)}"
        )
    if verify and (tokens := manifest.structure.tokens) is not None:
        check_stored_tokens(shard, tokens)
    return shard
