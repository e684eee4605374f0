"""Make the golden cache: `python -m tests.golden.make`. Only a new format version gives a reason to.

A set of float16 features and a set of int32 token ids, every column and a skipped sample among them. All
values come from digests and are exact in float16, so that they are the same on every machine.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from align_cache.store import FeatureSetWriter
from align_cache.store.layout import FORMAT_VERSION

CACHE = Path(__file__).with_name(f"format-{FORMAT_VERSION}")
ROWS, DIM, MAX_LENGTH, VOCABULARY = 4, 8, 6, 50
SAMPLE_IDS = ["a.jpg", "b.jpg", "c.jpg", "ä/d.jpg"]
LABELS = [0, 1, 1, -5]
SPLITS = ["train", "train", "val", None]
SKIPPED = ("e.jpg", "half a JPEG")
TEXTS = ["", "ein Bär", "熊 🐻", "a red square"]


def identity(dtype: str, encoder: dict[str, Any]) -> dict[str, Any]:
    """The identity of one of the two sets."""
    return {
        "format": FORMAT_VERSION,
        "dataset": {
            "name": "golden", "revision": "1", "splits": ["train", "val"], "limit": None,
            "samples": hashlib.sha256(b"golden").hexdigest(), "rows": ROWS + (dtype == "float16"),
        },
        "encoder": encoder,
        "compute": {"batch_size": 2} if dtype == "float16" else {},
        "storage": {"dtype": dtype, "normalised": dtype == "float16", "shard_rows": 8},
        "corruption": {"kind": "blur", "severity": 2, "version": 1} if dtype == "float16" else None,
    }  # fmt: skip


FEATURES = identity("float16", {"name": "drawn", "modality": "image"})
TOKENS = identity(
    "int32",
    {
        "name": "tokens", "modality": "text", "tokenizer": {"sha256": "f" * 64},
        "max_length": MAX_LENGTH, "vocabulary_size": VOCABULARY, "pad_id": 0,
    },
)  # fmt: skip


def features() -> np.ndarray:
    """Unit-norm rows: four entries of each are 1/2 or -1/2, the others 0."""
    rows = np.zeros((ROWS, DIM), np.float32)
    for row in range(ROWS):
        digest = hashlib.sha256(b"row %d" % row).digest()
        places = sorted(range(DIM), key=lambda place: digest[place])[:4]
        rows[row, places] = [0.5 if digest[8 + place] % 2 else -0.5 for place in places]
    return rows


def tokens() -> np.ndarray:
    """Rows of 1 to ``MAX_LENGTH`` ids, then padding."""
    rows = np.zeros((ROWS, MAX_LENGTH), np.int32)
    for row in range(ROWS):
        digest = hashlib.sha256(b"ids %d" % row).digest()
        length = 1 + digest[0] % MAX_LENGTH
        rows[row, :length] = [1 + value % (VOCABULARY - 1) for value in digest[1 : 1 + length]]
    return rows


def write(cache_dir: Path) -> None:
    """Write both sets."""
    record = {"hdf5": h5py.version.hdf5_version}
    names = ("cat", "dog")
    with FeatureSetWriter(cache_dir, FEATURES, untrained=True, label_names=names) as writer:
        writer.write_shard(
            0, features=features(), sample_id=SAMPLE_IDS, label=LABELS, split=SPLITS, skipped=[SKIPPED]
        )
        writer.finish(record)
    with FeatureSetWriter(cache_dir, TOKENS, untrained=False) as writer:
        captions = [f"{name}#0" for name in SAMPLE_IDS]
        counts = {"truncated": 2, "empty": 1}
        writer.write_shard(
            0, features=tokens(), sample_id=captions, group_id=SAMPLE_IDS, text=TEXTS, counts=counts
        )
        writer.finish(record)


if __name__ == "__main__":
    shutil.rmtree(CACHE, ignore_errors=True)
    write(CACHE)
    for path in CACHE.rglob("*.lock"):
        path.unlink()
