"""Peak memory of a fit, beyond the mapped files: rows gathered from the map against rows copied into memory.

    python tests/benchmarks/fit_memory.py [--images 300000]

Random features of three encoders are written to a temporary cache, then one epoch of a linear adapter is run
in a process of its own for each way of reading them. What is reported is the peak of *anonymous* resident
memory (RssAnon): pages of the mapped files are the kernel's to keep or drop and are shared by all runs. Last,
the map is used by a process that is not allowed to hold the features (RLIMIT_DATA below their size).
"""

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from align_cache.extraction.external import import_features

DIMS = {"image": 768, "text": 768, "reference": 768}


def write_features(cache_dir: Path, n: int) -> int:
    """Write the three sets; return the bytes of their features."""
    generator = np.random.default_rng(0)
    ids = np.array([f"{i:08d}" for i in range(n)])
    for role, dim in DIMS.items():
        arrays = {"sample_id": ids, "features": generator.standard_normal((n, dim), dtype=np.float32)}
        if role == "text":
            arrays = {**arrays, "sample_id": np.char.add(ids, "#0"), "group_id": ids}
        file = cache_dir / "features.npz"
        np.savez(file, **arrays)
        modality = "text" if role == "text" else "image"
        import_features(file, dataset="random", encoder=role, modality=modality, cache_dir=cache_dir)
        file.unlink()
    return sum(2 * n * dim for dim in DIMS.values())


def fit(
    cache_dir: Path, rows: str, *, data_limit: int | None = None, images: str = "none"
) -> tuple[int, int, float]:
    """Run one epoch; return its exit code, the peak of RssAnon in bytes and the seconds it took."""
    line = (
        "fit --adapter linear --dataset random "
        "--image-encoder image --text-encoder text --reference reference "
        f"--num-samples {images} --epochs 1 --no-figures --set optim.warmup_epochs=0 "
        f"--set log.viz_frequency=0 --set data.val_fraction=0.01 --set data.rows={rows}"
    )

    def limit() -> None:
        if data_limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (data_limit, data_limit))

    start = time.perf_counter()
    command = [sys.executable, "-m", "align_cache", *line.split(), "--cache-dir", str(cache_dir)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=limit
    )
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        for row in status.read_text().splitlines():
            if row.startswith("RssAnon:"):
                peak = max(peak, 1024 * int(row.split()[1]))
        time.sleep(0.01)
    return process.returncode, peak, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=300_000)
    n = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        features = write_features(Path(folder), n)
        print(f"{platform.machine()}, {n:,} pairs, {features / 1e6:,.0f} MB of features in three sets")
        _, base, _ = fit(Path(folder), "mmap", images="512")
        print(f"512 pairs from the map (the floor: python, torch, ids): {base / 1e6:6,.0f} MB")
        for rows in ("mmap", "memory"):
            code, peak, seconds = fit(Path(folder), rows)
            held = f"{(peak - base) / features:5.2f} x the features above the floor"
            print(f"{rows:>6}: exit {code}, {peak / 1e6:6,.0f} MB, {held}, {seconds:.0f} s")
        # Thread stacks and reserved arenas count as data too, hence the gigabyte.
        limit = base + 1_000_000_000
        for rows in ("mmap", "memory"):
            code, peak, _ = fit(Path(folder), rows, data_limit=limit)
            print(f"RLIMIT_DATA {limit / 1e6:,.0f} MB, {rows:>6}: exit {code}, {peak / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
