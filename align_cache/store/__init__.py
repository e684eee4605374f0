"""The feature store: the wall of checked files between extraction and everything that reads.

``layout`` names, ``manifest`` describes, ``shard`` is one file, ``writer`` publishes, ``reader`` opens,
``catalog`` finds, ``verify`` judges and removes. The format is docs/cache-format.md.
"""

from align_cache.store.catalog import StoredSet, find, find_one, is_complete, open_feature_set
from align_cache.store.manifest import Manifest
from align_cache.store.reader import FeatureSet
from align_cache.store.writer import FeatureSetWriter

__all__ = [
    "FeatureSet",
    "FeatureSetWriter",
    "Manifest",
    "StoredSet",
    "find",
    "find_one",
    "is_complete",
    "open_feature_set",
]
