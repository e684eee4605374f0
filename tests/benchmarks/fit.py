"""Seconds of one training epoch: this project's loop, what people write first, and the floor under both.

    python tests/benchmarks/fit.py [--rounds 5] [--device cpu|cuda]

The first document's MLP (1024–1024 on both sides, 512 and 768 features into 768) on 12,800 pairs, batches of
256 accumulated twice, contrastive and variance loss. In one process, round after round, each way once:

    h5py        rows of an HDF5 file through a DataLoader, with 0 and 2 workers
    datasets    a `datasets` table in torch format through a DataLoader
    in memory   tensors and index_select; stock modules, micro-batch after micro-batch, AdamW as it comes
    ours        `align-cache fit`, in float32 and in bfloat16, rows in memory and gathered from the map
    floor       the matrix products of the same epoch alone, and the optimiser's steps alone
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from align_cache.runtime import prepare_environment

prepare_environment()

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from align_cache.extraction.external import import_features  # noqa: E402
from align_cache.runtime import keeping_freed_memory, provenance  # noqa: E402
from align_cache.settings import fit_config  # noqa: E402
from align_cache.training.assemble import Opened, assemble  # noqa: E402
from align_cache.training.trainer import Trainer  # noqa: E402

N, BATCH, ACCUMULATION = 12_800, 256, 2
DIMS = {"image": 512, "text": 768, "reference": 768}
Batch = tuple[Tensor, Tensor, Tensor]


class Rows(Dataset[Batch]):
    """Rows of an HDF5 file, opened in each worker."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, None

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Batch:
        if self.file is None:
            self.file = h5py.File(self.path)
        image, text, reference = (torch.from_numpy(self.file[name][index]).float() for name in DIMS)
        return image, text, reference


def head(dim: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (1024, 1024):
        layers += [nn.Linear(dim, width), nn.GELU(), nn.LayerNorm(width), nn.Dropout(0.2)]
        dim = width
    return nn.Sequential(*layers, nn.Linear(dim, 768), nn.LayerNorm(768))


class Stock:
    """The loop that one writes first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.image, self.text = head(512).to(device), head(768).to(device)
        self.parameters = [*self.image.parameters(), *self.text.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.02)

    def epoch(self, batches: Iterable[Batch]) -> None:
        for index, batch in enumerate(batches):
            image, text, reference = (rows.to(self.device) for rows in batch)
            z_image, z_text = F.normalize(self.image(image)), F.normalize(self.text(text))
            logits = z_image @ z_text.T / 0.2
            target = torch.arange(len(logits), device=self.device)
            loss = (
                F.cross_entropy(logits, target, label_smoothing=0.15)
                + F.cross_entropy(logits.T, target, label_smoothing=0.15)
            ) / 2
            aligned, dim = F.normalize((z_image + z_text) / 2), 768
            gap = dim * aligned.var(0) - dim * F.normalize(reference).var(0)
            ((loss + 0.4 * gap.square().mean()) / ACCUMULATION).backward()
            if (index + 1) % ACCUMULATION == 0:
                torch.nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimizer.step()
                self.optimizer.zero_grad()


def features() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    rows = {name: generator.standard_normal((N + 512, dim), dtype=np.float32) for name, dim in DIMS.items()}
    return {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in rows.items()}


def ours(
    folder: Path, device: str, precision: str, rows: str, *, cuda_graph: bool = False
) -> Callable[[], None]:
    """Give a call that trains the next epoch."""
    flags = {"data.dataset": "random", "data.image_encoder": "image", "data.text_encoder": "text",
             "data.reference": "reference", "data.num_samples": N, "data.val_fraction": 512 / (N + 512),
             "data.rows": rows, "optim.epochs": 1000, "precision": precision, "device": device}  # fmt: skip
    parts = assemble(fit_config(flags=flags), Opened(folder))
    trainer = Trainer(
        [parts.member],
        parts.inputs,
        device=parts.device,
        bf16=parts.precision == "bf16",
        cuda_graph=cuda_graph,
    )
    epoch = 0

    def run() -> None:
        nonlocal epoch
        epoch += 1
        steps = ([rows] for rows in parts.batches.epoch(epoch))
        trainer.epoch(steps, epoch=epoch, first_step=(epoch - 1) * parts.batches.steps_per_epoch)

    return run


def products(device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """The epoch's matrix products alone: each layer forward, its two gradients, and the similarities."""
    shapes = [(512, 1024), (1024, 1024), (1024, 768), (768, 1024), (1024, 1024), (1024, 768)]
    n = BATCH * ACCUMULATION
    layers = [(torch.randn(n, i), torch.randn(i, o), torch.randn(n, o)) for i, o in shapes]
    layers = [tuple(x.to(device, dtype) for x in layer) for layer in layers]
    z = torch.randn(ACCUMULATION, BATCH, 768, device=device, dtype=torch.float32)

    def run() -> None:
        for _ in range(N // n):
            for x, w, g in layers:
                _ = x @ w, x.T @ g, g @ w.T
            s = z @ z.mT
            _ = s @ z, s.mT @ z

    return run


def adamw(device: torch.device) -> Callable[[], None]:
    parameters = [*head(512).to(device).parameters(), *head(768).to(device).parameters()]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def run() -> None:
        for _ in range(N // (BATCH * ACCUMULATION)):
            optimizer.step()

    return run


def in_memory(rows: dict[str, np.ndarray], device: torch.device) -> Iterator[Batch]:
    tensors = [torch.from_numpy(x[:N]).to(device) for x in rows.values()]
    while True:
        order = torch.randperm(N, device=device)
        for start in range(0, N, BATCH):
            index = order[start : start + BATCH]
            image, text, reference = (x.index_select(0, index) for x in tensors)
            yield image, text, reference


def table(rows: dict[str, np.ndarray]) -> DataLoader[dict[str, Tensor]]:
    from datasets import Dataset as HubDataset

    held = HubDataset.from_dict({name: x[:N] for name, x in rows.items()}).with_format("torch")
    return DataLoader(held, batch_size=BATCH, shuffle=True)


def timed(call: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ways(folder: Path, device: torch.device) -> dict[str, Callable[[], None]]:
    rows = features()
    with h5py.File(folder / "rows.h5", "w") as file:
        for name, x in rows.items():
            file[name] = x[:N].astype(np.float16)
    ids = np.array([f"{i:06d}" for i in range(N + 512)])
    for role, x in rows.items():
        arrays = {"sample_id": ids, "features": x}
        if role == "text":
            arrays = {**arrays, "sample_id": np.char.add(ids, "#0"), "group_id": ids}
        np.savez(folder / "rows.npz", **arrays)
        modality = "text" if role == "text" else "image"
        import_features(
            folder / "rows.npz", dataset="random", encoder=role, modality=modality, cache_dir=folder
        )
    loaders = {w: DataLoader(Rows(folder / "rows.h5"), BATCH, shuffle=True, num_workers=w) for w in (0, 2)}
    stock = {name: Stock(device) for name in ("h5py 0", "h5py 2", "datasets", "in memory")}
    memory = in_memory(rows, device)
    found: dict[str, Callable[[], None]] = {
        "h5py, DataLoader, 0 workers": lambda: stock["h5py 0"].epoch(loaders[0]),
        "h5py, DataLoader, 2 workers": lambda: stock["h5py 2"].epoch(loaders[2]),
        "in memory, stock loop": lambda: stock["in memory"].epoch(next(memory) for _ in range(N // BATCH)),
    }
    try:
        held = table(rows)
        found["datasets, torch format"] = lambda: stock["datasets"].epoch(tuple(b.values()) for b in held)
    except ImportError:
        print("datasets is not installed: left out")
    for precision in ("fp32", "bf16"):
        for where in ("memory", "mmap"):
            found[f"ours, {precision}, {where}"] = ours(folder, device.type, precision, where)
        if device.type == "cuda":
            graph = ours(folder, device.type, precision, "memory", cuda_graph=True)
            found[f"ours, {precision}, CUDA graph"] = graph
    found["products alone, fp32"] = products(device, torch.float32)
    found["products alone, bf16"] = products(device, torch.bfloat16)
    found["AdamW alone, fused"] = adamw(device)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        calls = ways(Path(folder), device)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(arguments.rounds):
            for name, call in calls.items():
                with keeping_freed_memory() if name.startswith("ours") else nullcontext():
                    if "h5py" not in name:
                        call()  # warm
                    seconds[name].append(timed(call, device))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    own = median["ours, bf16, memory"]
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    )
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {provenance()['platform']}")
    print(f"{N:,} pairs, median of {arguments.rounds} interleaved rounds, s/epoch")
    for way, value in median.items():
        low, high = min(seconds[way]), max(seconds[way])
        print(f"{way:30s} {value:7.3f}  ({low:.3f} – {high:.3f})  {value / own:6.2f} x ours in bf16")
    floor = median["products alone, bf16"] + median["AdamW alone, fused"]
    print(f"ours in bf16: {own / floor:.2f} x the products and AdamW alone")


if __name__ == "__main__":
    main()
