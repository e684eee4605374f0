"""Write one toy feature set, and kill that writing in every way; run by the tests beside it.

A process of its own, so that it may fork (nothing here starts a thread) and so that ``kill -9`` is real.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from align_cache import files
from align_cache.store import FeatureSet, FeatureSetWriter
from align_cache.store.shard import open_shard

ROWS, SHARD_ROWS, DIM = 40, 8, 64
IDENTITY = {
    "format": 1,
    "dataset": {
        "name": "toy", "revision": "1", "splits": None, "limit": None, "samples": "0" * 64, "rows": ROWS
    },
    "encoder": {"name": "flat", "modality": "image"},
    "compute": {},
    "storage": {"dtype": "float16", "normalised": True, "shard_rows": SHARD_ROWS},
    "corruption": None,
}  # fmt: skip


def write(cache_dir: Path) -> Path:
    """Do what is missing, as an extraction would."""
    features = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    with FeatureSetWriter(cache_dir, IDENTITY, untrained=True) as writer:
        for index in writer.missing:
            part = writer.shard_slices[index]
            ids = [f"image-{row}" for row in range(part.start, part.stop)]
            writer.write_shard(index, features=features[part], sample_id=ids)
        writer.finish({"host": "toy"})
    return writer.folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def check_stage(folder: Path, reference: dict[str, bytes]) -> bool:
    """Hold what a killed writer left against the reference; say whether the set is finished."""
    found = {name: data for name, data in contents(folder).items() if not name.endswith(".tmp")}
    for name, data in found.items():
        assert data == reference[name], f"{name} is neither whole nor absent"
        if name.endswith(".h5"):
            open_shard(folder / name)
    if "manifest.json" in found:
        assert found == reference, "a manifest stands for a set that is not whole"
        FeatureSet.open(folder)
    return "manifest.json" in found


def die_at(step: int) -> None:
    """Kill this process just before its ``step``-th flush, rename or removal: after the one before it."""
    count = 0

    def deadly(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    files.fsync = deadly(files.fsync)
    Path.replace = deadly(Path.replace)
    Path.unlink = deadly(Path.unlink)


def forked(action) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return pid


def killed_at_every_step(cache_dir: Path, folder: Path, reference: dict[str, bytes]) -> int:
    """Begin anew for each step of the protocol, die there, and finish; return how many steps there are."""
    for step in range(1, 1000):
        for path in folder.iterdir():
            path.unlink()

        def action(step: int = step) -> None:
            die_at(step)
            write(cache_dir)

        _, status = os.waitpid(forked(action), 0)
        check_stage(folder, reference)
        write(cache_dir)
        assert contents(folder) == reference
        if not os.WIFSIGNALED(status):
            assert status == 0, "the writer failed by itself"
            return step - 1
    raise AssertionError("the protocol has no end")


def killed_at_random(cache_dir: Path, folder: Path, reference: dict[str, bytes], kills: int) -> int:
    """Kill at random moments, going on from what is left; return how often a set was finished."""
    rng, hits, finished = random.Random(0), 0, 0
    for path in folder.iterdir():
        path.unlink()
    start = time.perf_counter()
    write(cache_dir)
    duration = time.perf_counter() - start
    for path in folder.iterdir():  # a finished set is not written again, by an extraction neither
        path.unlink()
    while hits < kills:
        pid = forked(lambda: write(cache_dir))
        time.sleep(rng.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        hits += os.WIFSIGNALED(status)
        if check_stage(folder, reference):
            assert contents(folder) == reference
            finished += 1
            for path in folder.iterdir():
                path.unlink()
    write(cache_dir)
    assert contents(folder) == reference
    return finished


def main() -> None:
    mode, cache_dir = sys.argv[1], Path(sys.argv[2])
    folder = write(cache_dir)
    reference = contents(folder)
    if mode == "every-step":
        print(killed_at_every_step(cache_dir, folder, reference))
    elif mode == "random":
        print(killed_at_random(cache_dir, folder, reference, int(sys.argv[3])))
    elif mode == "hold":
        with FeatureSetWriter(cache_dir, IDENTITY, untrained=True):
            print("held", flush=True)
            time.sleep(600)


if __name__ == "__main__":
    main()
