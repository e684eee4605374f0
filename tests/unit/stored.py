"""Small feature sets on disk for the tests of everything that reads them."""

from pathlib import Path

import numpy as np

from align_cache.extraction.external import import_features
from align_cache.store import FeatureSet


def unit_rows(generator: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = generator.standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def paired_sets(
    cache_dir: Path,
    *,
    n: int = 60,
    captions: int | list[int] = 3,
    dims: tuple[int, int, int] = (12, 10, 8),
    seed: int = 0,
    splits: bool = True,
) -> tuple[FeatureSet, FeatureSet, FeatureSet]:
    """Image, text and reference features that share a latent, as dataset "toy"; the text set is shuffled."""
    generator = np.random.default_rng(seed)
    latent = generator.standard_normal((n, 6))
    ids = np.array([f"im{i:03d}.jpg" for i in range(n)])
    split = np.array(["train" if i % 5 < 3 else "val" if i % 5 == 3 else "test" for i in range(n)])
    counts = captions if isinstance(captions, list) else [captions] * n
    group = np.repeat(np.arange(n), counts)
    text_order = generator.permutation(len(group))

    def features(rows: np.ndarray, dim: int) -> np.ndarray:
        values = rows @ np.random.default_rng(dim).standard_normal((6, dim))
        values = values + 0.3 * generator.standard_normal(values.shape)
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

    number = np.concatenate([np.arange(count) for count in counts])
    text_ids = np.array([f"{ids[g]}#{k}" for g, k in zip(group, number, strict=True)])
    image_split = {"split": split} if splits else {}
    arrays = {
        "image": {"sample_id": ids, "features": features(latent, dims[0]), **image_split},
        "text": {
            "sample_id": text_ids[text_order],
            "group_id": ids[group][text_order],
            "features": features(latent[group], dims[1])[text_order],
        },
        "reference": {"sample_id": ids[::-1], "features": features(latent[::-1], dims[2])},
    }
    opened = []
    for role, content in arrays.items():
        file = cache_dir / f"{role}.npz"
        np.savez(file, **content)
        imported = import_features(
            file,
            dataset="toy",
            encoder=role,
            modality="text" if role == "text" else "image",
            cache_dir=cache_dir,
        )
        opened.append(FeatureSet.open(imported.folder))
    image, text, reference = opened
    return image, text, reference


def published_bytes(cache_dir: Path) -> dict[str, bytes]:
    """Every file of every feature set but its provenance, which says when and where."""
    return {
        str(path.relative_to(cache_dir)): path.read_bytes()
        for path in sorted(cache_dir.glob("features/*/*/*"))
        if path.name != "provenance.json"
    }
