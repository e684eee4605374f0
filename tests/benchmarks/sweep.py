"""What a sweep costs beyond its steps: wall time of 1, 8, 32 and 64 runs over that of one alone.

    python tests/benchmarks/sweep.py [--runs 1 8 32 64] [--epochs 2] [--pairs 12800] [--device cuda]

The first document's MLP on random features; the runs differ in their seed. On a CPU they train in
processes, one a processor; on a GPU stacked, as many together as fit. For each number of runs: wall time, its
ratio to one run, and how it divides into steps, measuring and recording, and the rest: starting processes,
importing torch, opening features. The gathering of rows, a part of the steps, is timed by itself in this
process.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

from align_cache.runtime import prepare_environment

prepare_environment()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from align_cache.extraction.external import import_features  # noqa: E402
from align_cache.results import find_run  # noqa: E402
from align_cache.runtime import processors  # noqa: E402
from align_cache.settings import SweepConfig, fit_config  # noqa: E402
from align_cache.sweeps.records import trials_of  # noqa: E402
from align_cache.sweeps.sweeping import sweep  # noqa: E402
from align_cache.training.assemble import Opened, assemble  # noqa: E402

DIMS = {"image": 512, "text": 768, "reference": 768}
N_VAL = 1000


def write_features(cache_dir: Path, pairs: int) -> None:
    generator = np.random.default_rng(0)
    n = pairs + N_VAL
    ids = np.array([f"{i:06d}" for i in range(n)])
    split = np.where(np.arange(n) < pairs, "train", "val")
    for role, dim in DIMS.items():
        arrays = {
            "sample_id": ids,
            "split": split,
            "features": generator.standard_normal((n, dim), np.float32),
        }
        if role == "text":
            arrays = {**arrays, "sample_id": np.char.add(ids, "#0"), "group_id": ids}
        file = cache_dir / "rows.npz"
        np.savez(file, **arrays)
        modality = "text" if role == "text" else "image"
        import_features(file, dataset="random", encoder=role, modality=modality, cache_dir=cache_dir)


def gather_seconds(cache_dir: Path, base: dict[str, object]) -> float:
    """Seconds of one epoch's gathering alone."""
    parts = assemble(fit_config(flags=base), Opened(cache_dir, whole=True))
    best = float("inf")
    for epoch in (1, 2, 3):
        steps = ([rows] for rows in parts.batches.epoch(epoch))
        start = time.perf_counter()
        for batch in parts.inputs.batches(steps, with_reference=True):
            del batch
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=12_800)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jobs", type=int, help="processes on a CPU; one a processor if absent")
    parser.add_argument("--together", type=int, help="runs in one pass; what fits if absent")
    parser.add_argument("--cuda-graph", action="store_true")
    given = parser.parse_args()
    base: dict[str, object] = {
        **{"data.dataset": "random", "data.image_encoder": "image", "data.text_encoder": "text"},
        **{"data.reference": "reference", "data.num_samples": given.pairs, "optim.epochs": given.epochs},
        **{"optim.warmup_epochs": min(1, given.epochs - 1), "device": given.device},
        "cuda_graph": given.cuda_graph,
    }
    on_gpu = given.device == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, {processors()} processors"
    print(f"{name}, torch {torch.__version__}, {given.pairs:,} pairs, {given.epochs} epochs")
    print(
        f"{'runs':>4}  {'wall':>8}  {'over one':>8}  {'steps':>6}  {'records':>7}  {'rest':>5}  beyond steps"
    )
    with tempfile.TemporaryDirectory() as folder:
        cache_dir, alone = Path(folder), 0.0
        write_features(cache_dir, given.pairs)
        for n in given.runs:
            grid = {"seed": list(range(n))}
            config = SweepConfig(
                name=f"of-{n}", base=base, grid=grid, together=given.together, jobs=given.jobs
            )
            start = time.perf_counter()
            trials = trials_of(sweep(config, cache_dir=cache_dir))
            wall = time.perf_counter() - start
            assert len(trials) == n, [trial.error for trial in trials]
            runs = [find_run(str(trial.run), cache_dir=cache_dir) for trial in trials]
            records = [record for run in runs for record in run.records() if record["kind"] == "epoch"]
            lanes = 1 if on_gpu or (given.together or 1) > 1 else min(n, given.jobs or processors())
            steps = sum(record["train_s"] for record in records) / lanes
            spent = sum(trial.duration_s for trial in trials) / lanes
            alone = alone or wall
            shares = (steps / wall, (spent - steps) / wall, 1 - spent / wall)
            print(f"{n:4d}  {wall:7.1f}s  {wall / alone:8.2f}  {shares[0]:6.1%}  {shares[1]:7.1%}  "
                  f"{shares[2]:5.1%}  {wall / steps - 1:+.1%}")  # fmt: skip
        gather = gather_seconds(cache_dir, base)
        print(f"gathering alone: {gather:.3f} s an epoch")


if __name__ == "__main__":
    main()
