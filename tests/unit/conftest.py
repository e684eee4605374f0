"""Toy feature sets: any rows, shards and columns, written through the real writer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_cache.store import FeatureSetWriter

Toy = Callable[..., Any]


@pytest.fixture
def toy_identity() -> Toy:
    """Make the identity of a toy feature set."""

    def make(
        *, rows: int = 10, shard_rows: int = 4, dtype: str = "float16", dataset: str = "toy",
        encoder: str = "flat", modality: str = "image", **compute: Any,
    ) -> dict[str, Any]:  # fmt: skip
        return {
            "format": 1,
            "dataset": {
                "name": dataset,
                "revision": "1",
                "splits": None,
                "limit": None,
                "samples": "0" * 64,
                "rows": rows,
            },
            "encoder": {"name": encoder, "modality": modality},
            "compute": compute,
            "storage": {"dtype": dtype, "normalised": True, "shard_rows": shard_rows},
            "corruption": None,
        }

    return make


@pytest.fixture
def unit_rows() -> Callable[..., np.ndarray]:
    """Make random unit-norm float32 rows."""

    def make(rows: int, dim: int = 5, seed: int = 0) -> np.ndarray:
        features = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    return make


@pytest.fixture
def write_toy(cache_dir: Path, toy_identity: Toy, unit_rows: Toy) -> Toy:
    """Write a toy feature set, the shards that are missing, and return its folder."""

    def write(
        identity: dict[str, Any] | None = None, *, dim: int = 5, stop: int | None = None, finish: bool = True,
        columns: dict[str, list[Any]] | None = None, overwrite: bool = False,
    ) -> Path:  # fmt: skip
        identity = identity or toy_identity()
        rows = identity["dataset"]["rows"]
        features = unit_rows(rows, dim)
        ids = [f"image-{row}" for row in range(rows)]
        with FeatureSetWriter(cache_dir, identity, untrained=True, overwrite=overwrite) as writer:
            for index in writer.missing[:stop]:
                part = writer.shard_slices[index]
                extra = {name: values[part] for name, values in (columns or {}).items()}
                writer.write_shard(index, features=features[part], sample_id=ids[part], **extra)
            if finish:
                writer.finish({"host": "toy"})
        return writer.folder

    return write
