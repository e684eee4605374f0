"""The manifest that a set of whole shards gives: nothing in it comes from anywhere else but the identity."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from align_cache.errors import CacheError
from align_cache.store.layout import Identity, plain
from align_cache.store.manifest import Manifest, ShardEntry
from align_cache.store.matching import repeated
from align_cache.store.shard import Shard


def derive_manifest(
    identity: Identity, shards: Sequence[Shard], *, untrained: bool, label_names: Sequence[str]
) -> Manifest:
    """Return the manifest of a feature set from its checked shards, in order.

    Raises
    ------
    CacheError
        If an id stands twice in the set.
    """
    _refuse_duplicates(shards)
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(shard.counts)
    return Manifest(
        identity=plain(identity),
        dim=shards[0].features.shape[1],
        rows=sum(shard.rows for shard in shards),
        untrained=untrained,
        label_names=tuple(label_names),
        shards=tuple(_entry(shard) for shard in shards),
        skipped=tuple(pair for shard in shards for pair in _skipped(shard)),
        counts=dict(sorted(counts.items())),
    )


def _entry(shard: Shard) -> ShardEntry:
    size = shard.path.stat().st_size
    return ShardEntry(file=shard.path.name, rows=shard.rows, bytes=size, xxh3_128=shard.xxh3_128)


def _skipped(shard: Shard) -> Iterator[tuple[str, str]]:
    reasons = shard.columns["skipped_reason"].tolist()
    for sample, reason in zip(shard.columns["skipped_id"].tolist(), reasons, strict=True):
        yield sample.decode("utf-8"), reason.decode("utf-8")


def _refuse_duplicates(shards: Sequence[Shard]) -> None:
    ids = [shard.columns[name] for shard in shards for name in ("sample_id", "skipped_id")]
    twice = repeated(np.concatenate(ids))
    if twice is not None:
        raise CacheError(f"sample_id {twice.decode('utf-8')!r} stands twice in {shards[0].path.parent}")
