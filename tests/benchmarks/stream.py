"""Training on sets that exceed memory: rows read in any order and in blocks, and what a fit holds of them.

    python tests/benchmarks/stream.py [--rows 1000000] [--dim 64] [--steps 2000] [--cgroup DIR]

Random features of images and captions, one caption an image, are written to a temporary cache. Then, each in
a process of its own that begins with none of the files in the page cache:

- opening and joining the two sets;
- drawing an epoch's order, and gathering the rows of its first steps (512 pairs each; a sixteenth of them
  where the order is any): pairs a second, and how many bytes came from the disk for each byte of the rows;
- one epoch of a linear adapter in blocks, with RLIMIT_DATA a gigabyte and 64 bytes a pair above the floor of
  a process: seconds, and the peak of *anonymous* memory (RssAnon), which is what the process holds beyond
  mapped files. Where the features are larger than that, a fit that copies them has to fail.

``--cgroup`` names a memory cgroup (its folder) whose limit is set: every process goes into it, and then the
page cache is limited too, as on a machine with that little memory. Without, the bytes read say little: a
kernel that reads far ahead has a small set in its cache by the time it is joined.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from align_cache.store.writer import FeatureSetWriter

SHARD_ROWS = 65_536
STEP_PAIRS = 512


def write_set(cache_dir: Path, encoder: str, n: int, dim: int) -> None:
    """Write n random rows of one modality through the store."""
    identity = {
        "format": 1,
        "dataset": {"name": "random", "revision": "random", "splits": None, "limit": None,
                    "samples": "0" * 64, "rows": n},
        "encoder": {"name": encoder, "modality": encoder},
        "compute": {},
        "storage": {"dtype": "float16", "normalised": True, "shard_rows": SHARD_ROWS},
        "corruption": None,
    }  # fmt: skip
    generator = np.random.default_rng(len(encoder))
    with FeatureSetWriter(cache_dir, identity, untrained=True) as writer:
        for index in writer.missing:
            part = writer.shard_slices[index]
            features = generator.standard_normal((part.stop - part.start, dim), dtype=np.float32)
            features /= np.linalg.norm(features, axis=1, keepdims=True)
            ids = [f"{row:09d}" for row in range(part.start, part.stop)]
            groups = ids if encoder == "text" else None
            writer.write_shard(index, features=features, sample_id=ids, group_id=groups)
        writer.finish({})


def read(cache_dir: Path, order: str, steps: int) -> None:
    """Open, join and gather as a fit does; print what it took. Runs in a process of its own."""
    import torch

    from align_cache.pairing.batches import Batches
    from align_cache.pairing.embedding import open_inputs
    from align_cache.pairing.pairs import join
    from align_cache.store import open_feature_set

    start = time.perf_counter()
    image, text = (
        open_feature_set("random", role, cache_dir=cache_dir, verify=False) for role in ("image", "text")
    )
    opened = time.perf_counter() - start
    found = join(image, text, None)
    pairs = found.pairs
    joined = time.perf_counter() - start - opened
    batches = Batches(
        pairs,
        batch_size=STEP_PAIRS // 2,
        accumulation=2,
        captions_per_image=1,
        seed=0,
        order=order,  # type: ignore[arg-type]  # one of the two
    )
    inputs = open_inputs(found, pairs, device=torch.device("cpu"), where="mmap")
    start, epoch = time.perf_counter(), batches.epoch(1)
    next(epoch)  # draws the order
    drawn = time.perf_counter() - start
    from_disk, start, worked = read_bytes(), time.perf_counter(), time.process_time()
    rows = ((step,) for step in islice(epoch, steps))
    n = sum(batch.image.shape[0] for batch in inputs.batches(rows, with_reference=False))
    seconds, wanted = time.perf_counter() - start, n * (image.dim + text.dim) * 2
    print(json.dumps({
        "open_s": opened, "join_s": joined, "draw_s": drawn, "gather_s": seconds, "pairs": n,
        "worked_s": time.process_time() - worked, "amplification": (read_bytes() - from_disk) / wanted,
    }))  # fmt: skip


def read_bytes() -> int:
    """Return what this process has had read from the disk."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def drop_from_page_cache(folder: Path) -> None:
    """Ask the kernel to forget the files; what a process has mapped would stay."""
    for path in folder.rglob("*.h5"):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def watched(command: list[str], enter: Callable[[], None]) -> tuple[int, int, float, str]:
    """Run a command; return its exit code, the peak of RssAnon in bytes, the seconds, what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=enter,
    )
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        for row in status.read_text().splitlines():
            if row.startswith("RssAnon:"):
                peak = max(peak, 1024 * int(row.split()[1]))
        time.sleep(0.01)
    printed, _ = process.communicate()
    return process.returncode, peak, time.perf_counter() - start, printed


def entering(cgroup: Path | None, data_limit: int | None = None) -> Callable[[], None]:
    """Give what a child does before it begins."""

    def enter() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if data_limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (data_limit, data_limit))

    return enter


def fit_command(cache_dir: Path, rows: str, order: str, images: str = "none") -> list[str]:
    line = (
        "-m align_cache fit --adapter linear --dataset random --image-encoder image --text-encoder text "
        f"--num-samples {images} --epochs 1 --no-figures --set data.reference=none "
        "--set loss.distribution_matching=false --set optim.warmup_epochs=0 --set log.viz_frequency=0 "
        "--set log.log_frequency=1000 --set data.val_fraction=0.001 --set adapter.embed_dim=64 "
        f"--set data.rows={rows} --set data.order={order}"
    )
    return [*line.split(), "--cache-dir", str(cache_dir)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--cgroup", type=Path)
    parser.add_argument("--cache-dir", type=Path, help="with the sets in it from an earlier run, if any")
    parser.add_argument("--write", help=argparse.SUPPRESS)  # the two below: what a child process does
    parser.add_argument("--read", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write_set(args.cache_dir, args.write, args.rows, args.dim)
        return
    if args.read:
        read(args.cache_dir, args.read, args.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(args.cache_dir or Path(folder), args)


def measure(cache_dir: Path, args: argparse.Namespace) -> None:
    """Write the sets, unless they are there, and print what reading and training on them takes."""
    start, size = time.perf_counter(), 2 * 2 * args.rows * args.dim
    for encoder in ("image", "text"):
        if not list(cache_dir.glob(f"features/random/{encoder}-*/manifest.json")):
            own = ["--write", encoder, "--rows", str(args.rows), "--dim", str(args.dim)]
            subprocess.run([sys.executable, __file__, *own, "--cache-dir", str(cache_dir)], check=True)
    print(f"{platform.machine()}, {args.rows:,} pairs of {args.dim} float16, {size / 1e6:,.0f} MB of "
          f"features, written in {time.perf_counter() - start:.0f} s")  # fmt: skip
    for order in ("shuffled", "blocks"):
        drop_from_page_cache(cache_dir)
        steps = args.steps if order == "blocks" else args.steps // 16  # each of them waits for the disk
        command = [__file__, "--read", order, "--cache-dir", str(cache_dir), "--steps", str(steps)]
        code, peak, _, printed = watched(command, entering(args.cgroup))
        if code:
            print(f"{order:>8}: exit {code}")
            continue
        found = json.loads(printed)
        by_clock, by_work = (found["pairs"] / found[name] for name in ("gather_s", "worked_s"))
        print(f"{order:>8}: open {found['open_s']:.1f} s, join {found['join_s']:.1f} s, draw an epoch "
              f"{found['draw_s']:.1f} s, {by_clock:,.0f} pairs/s ({by_work:,.0f} a processor second), "
              f"{found['amplification']:.2f} bytes read for each byte of the rows, "
              f"RssAnon {peak / 1e6:,.0f} MB")  # fmt: skip
    _, floor, _, _ = watched(fit_command(cache_dir, "mmap", "blocks", images="512"), entering(args.cgroup))
    print(f"a fit on 512 pairs (the floor: python, torch, ids): {floor / 1e6:,.0f} MB")
    # Thread stacks and reserved arenas count as data too: a gigabyte. An epoch's rows take some bytes a pair.
    spare = 1_000_000_000 + 64 * args.rows
    limit = floor + spare
    for rows in ("mmap", "memory") if size > spare else ("mmap",):
        drop_from_page_cache(cache_dir)
        command = fit_command(cache_dir, rows, "blocks")
        code, peak, seconds, _ = watched(command, entering(args.cgroup, limit))
        print(f"fit, blocks, {rows:>6}, RLIMIT_DATA {limit / 1e6:,.0f} MB: exit {code}, "
              f"RssAnon {peak / 1e6:,.0f} MB, {seconds:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
