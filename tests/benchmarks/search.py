"""Exact search from a memory map against faiss's flat index and a plain product with a full sort.

    python tests/benchmarks/search.py --rows 100000 --queries 1 16

Random unit rows in a float32 file that is mapped, as embeddings would be; the page cache is warm. One thread
for each way. faiss holds all rows in memory, and building its index is timed by itself; the plain way
holds every similarity. Every way has to find the same rows.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch; see docs/performance.md

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from align_cache.pairing.embedding import BLOCK_ROWS
from align_cache.use.nearest import ExactIndex, FaissIndex

Rows = NDArray[np.float32]


def written(file: Path, n: int, dim: int) -> Rows:
    """Random unit rows in a file, mapped."""
    random = np.random.default_rng(0)
    rows = np.memmap(file, np.float32, "w+", shape=(n, dim))
    for start in range(0, n, BLOCK_ROWS):
        block = random.standard_normal((min(BLOCK_ROWS, n - start), dim), dtype=np.float32)
        rows[start : start + BLOCK_ROWS] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def timed(function: Callable[[], NDArray[np.int64]]) -> tuple[float, NDArray[np.int64]]:
    """Seconds, and what was found."""
    start = time.perf_counter()
    found = function()
    return time.perf_counter() - start, found


def compare(rows: Rows, queries: Rows, k: int, repeats: int) -> None:
    """Time every way in turn, and print medians with their spread and the ratio to the exact index."""

    def blocks() -> Iterator[Rows]:
        for start in range(0, len(rows), BLOCK_ROWS):
            yield rows[start : start + BLOCK_ROWS]

    build, flat = timed(lambda: FaissIndex(blocks))  # type: ignore[arg-type, return-value] # an index, no rows
    ways: dict[str, Callable[[], NDArray[np.int64]]] = {
        "align-cache exact": lambda: ExactIndex(blocks).nearest(queries, k=k).rows,
        "align-cache faiss": lambda: flat.nearest(queries, k=k).rows,
        "plain argsort": lambda: np.argsort(-(queries @ rows.T), axis=1)[:, :k],
    }
    seconds = defaultdict(list)
    for repeat in range(repeats + 1):
        found = {}
        for name, way in ways.items():
            spent, found[name] = timed(way)
            if repeat:  # the first warms up
                seconds[name].append(spent)
        agreed = [(found["align-cache exact"] == other).mean() for other in found.values()]
        assert min(agreed) > 0.999, agreed  # neighbours that are equal in float32 may change places
    ours = statistics.median(seconds["align-cache exact"])
    print(
        f"{len(rows):,} rows x {rows.shape[1]}, {len(queries)} queries, k = {k}; faiss built in {build:.2f} s"
    )
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"  {name:18} {1e3 * median:8.1f} ms  ({1e3 * min(values):.1f} to {1e3 * max(values):.1f})  "
              f"x {median / ours:.2f}")  # fmt: skip


def main() -> None:
    """Run the comparison for each number of queries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16])
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"numpy {np.__version__}, faiss {faiss.__version__}, one thread, {platform.platform()}")
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        rows = written(Path(folder) / "rows", options.rows, options.dim)
        for count in options.queries:
            compare(rows, np.array(rows[:: len(rows) // count][:count]), options.k, options.repeats)


if __name__ == "__main__":
    main()
