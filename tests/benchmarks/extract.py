"""Images and captions a second through the true architectures: this project, a plain script, the floors.

    ALIGN_CACHE_TEST_DATA=DIR python tests/benchmarks/extract.py [--images 64] [--rounds 3] [--device cuda]

Real photographs, enlarged to the 500 x 375 pixels that Flickr30k's have, and their captions; random weights.
In one process, round after round, each way once, models loaded beforehand or not counted:

    plain    PIL, torchvision's transforms, a DataLoader with as many workers as processors, the eager model
             in fp32; captions padded to 64 tokens; every encoder decodes for itself
    ours     `align-cache extract`, in bf16 where that is fast; `fast` is the same with --decode fast
    floors   decoding alone, in our threads; each model's forward pass alone, on what is ready in memory
"""

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from align_cache.runtime import prepare_environment

prepare_environment()

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from align_cache.encoders import load, resolve  # noqa: E402
from align_cache.encoders.base import EncoderRequest  # noqa: E402
from align_cache.encoders.named import NAMED  # noqa: E402
from align_cache.extraction.decoding import Decoder  # noqa: E402
from align_cache.extraction.extracting import extract  # noqa: E402
from align_cache.runtime import provenance, resolve_device, resolve_precision, torch_dtype  # noqa: E402
from align_cache.settings import ExtractConfig  # noqa: E402
from align_cache.sources import open_source  # noqa: E402

IMAGE_ENCODERS, BATCH, MAX_LENGTH = ("resnet18", "dinov2"), 64, 64
ROWS = [*IMAGE_ENCODERS, "both", "decode", "distilbert"]
Way = Callable[[], float]
"""Does its work once and returns the seconds that count."""


def write_photographs(data: Path, folder: Path, count: int) -> None:
    """Enlarge real photographs and put their captions beside them, in the layout that extract reads."""
    paths = sorted((data / "flickr8k" / "Images").glob("*.jpg"))[:count]
    wanted = {path.name for path in paths}
    for path in paths:
        with Image.open(path) as image:
            large = image.convert("RGB").resize((500, 375), Image.Resampling.BICUBIC)
        large.save(folder / path.name, quality=92)
    lines = (data / "flickr8k" / "captions.txt").read_text().splitlines()
    kept = [line for line in lines[1:] if line.partition(",")[0] in wanted]
    (folder / "captions.csv").write_text("file_name,caption\n" + "\n".join(kept) + "\n")


class Photographs(Dataset[Tensor]):
    """What a plain script feeds its model."""

    def __init__(self, folder: Path) -> None:
        from torchvision import transforms as t

        self.paths = sorted(folder.glob("*.jpg"))
        self.transform = t.Compose(
            [t.Resize(256), t.CenterCrop(224), t.ToTensor(), t.Normalize([0.485, 0.456, 0.406], [0.229] * 3)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(io.BytesIO(self.paths[index].read_bytes())) as image:
            return self.transform(image.convert("RGB"))


def plain_network(name: str, device: torch.device) -> nn.Module:
    if name == "resnet18":
        from torchvision.models import resnet18

        network = resnet18()
        network.fc = nn.Identity()
    else:
        from transformers import AutoConfig, AutoModel

        network = AutoModel.from_config(AutoConfig.for_model(**NAMED[name].config))
    return network.eval().to(device)


def plain_images(name: str, folder: Path, device: torch.device) -> Way:
    network, photographs = plain_network(name, device), Photographs(folder)

    def run() -> float:
        start = time.perf_counter()
        loader = DataLoader(photographs, batch_size=BATCH, num_workers=os.cpu_count() or 1)
        with torch.inference_mode():
            for pixels in loader:
                output = network(pixels.to(device))
                (output if name == "resnet18" else output.last_hidden_state[:, 0]).cpu()
        return time.perf_counter() - start

    return run


def plain_captions(texts: list[str], tokenizer: Any, device: torch.device) -> Way:
    network = plain_network("distilbert", device)

    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, len(texts), BATCH):
                rows = tokenizer.encode(texts[first : first + BATCH])[0]
                ids = torch.tensor([row + [0] * (MAX_LENGTH - len(row)) for row in rows], device=device)
                mask = (ids != 0).long()
                network(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].cpu()
        return time.perf_counter() - start

    return run


def ours(encoders: tuple[str, ...], modality: str, folder: Path, cache: Path, **changes: Any) -> Way:
    config = ExtractConfig(
        dataset="folder",
        data_dir=folder,
        encoders=encoders,
        weights={"*": "random"},
        overwrite=True,
        **changes,
    )

    def run() -> float:
        return next(r.seconds for r in extract(config, cache_dir=cache) if r.modality == modality)

    return run


def decoding(folder: Path, decode: Any) -> Way:
    source = open_source("folder", data_dir=folder)
    specs = [resolve(EncoderRequest(name, "random", decode=decode)) for name in IMAGE_ENCODERS]
    preprocesses = [spec.preprocess for spec in specs if spec.preprocess is not None]

    def run() -> float:
        start = time.perf_counter()
        with Decoder(source, preprocesses, workers=os.cpu_count() or 1, batch_size=BATCH) as decoder:
            for _ in decoder.batches(range(len(source.images))):
                pass
        return time.perf_counter() - start

    return run


def forward(encoder: Any, count: int, device: torch.device, dtype: torch.dtype) -> Way:
    pixels = torch.randn(BATCH, 3, 224, 224).to(device, dtype).contiguous(memory_format=torch.channels_last)
    batches = [pixels[: min(BATCH, count - first)] for first in range(0, count, BATCH)]
    return timed(lambda: [encoder._model(batch) for batch in batches], device)


def forward_captions(encoder: Any, texts: list[str], device: torch.device) -> Way:
    rows = sorted(encoder._tokenizer.encode(texts)[0], key=len, reverse=True)
    batches = []
    for first in range(0, len(rows), BATCH):
        chosen = rows[first : first + BATCH]
        ids = torch.tensor([row + [0] * (len(chosen[0]) - len(row)) for row in chosen], device=device)
        batches.append((ids, (ids != 0).long()))
    return timed(lambda: [encoder._model(*batch) for batch in batches], device)


def timed(call: Callable[[], object], device: torch.device) -> Way:
    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return run


class Ways:
    """What there is to time, row by row of the table, so that only what is asked for is built."""

    def __init__(self, folder: Path, cache: Path, tokenizer: Path, device: torch.device) -> None:
        self.folder, self.cache, self.tokenizer, self.device = folder, cache, tokenizer, device
        precision = resolve_precision("auto", device)
        self.dtype = torch_dtype(precision)
        self.common = {"precision": precision, "device": device.type, "batch_size": BATCH}
        source = open_source("folder", data_dir=folder)
        self.count, self.texts = len(source.images), [caption.text for caption in source.captions]

    def rows(self, names: list[str]) -> dict[str, dict[str, Way]]:
        return {name: self.row(name) for name in names}

    def row(self, name: str) -> dict[str, Way]:
        if name == "decode":
            return {"ours": decoding(self.folder, "model"), "fast": decoding(self.folder, "fast")}
        if name == "distilbert":
            return self.captions()
        encoders = IMAGE_ENCODERS if name == "both" else (name,)
        plain = [plain_images(encoder, self.folder, self.device) for encoder in encoders]
        make = partial(ours, encoders, "image", self.folder, self.cache, **self.common)
        row: dict[str, Way] = {
            "plain": lambda: sum(run() for run in plain),
            "ours": make(),
            "fast": make(decode="fast"),
        }
        if name != "both":
            row["floor"] = forward(self.loaded(name), self.count, self.device, self.dtype)
        return row

    def captions(self) -> dict[str, Way]:
        encoder = self.loaded("distilbert")
        common = self.common | {"tokenizer": self.tokenizer}
        return {
            "plain": plain_captions(self.texts, encoder._tokenizer, self.device),
            "ours": ours(("distilbert",), "text", self.folder, self.cache, **common),
            "floor": forward_captions(encoder, self.texts, self.device),
        }

    def loaded(self, name: str) -> Any:
        spec = resolve(EncoderRequest(name, "random", tokenizer=self.tokenizer))
        return load(spec, device=self.device, dtype=self.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    given = parser.parse_args()
    data, device = Path(os.environ["ALIGN_CACHE_TEST_DATA"]), resolve_device(given.device)
    print(platform.processor() or platform.machine(), provenance()["packages"])
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "photographs", Path(name) / "cache"
        folder.mkdir()
        cache.mkdir()
        write_photographs(data, folder, given.images)
        ways = Ways(folder, cache, data / "bert-base-uncased-vocab", device)
        table = ways.rows(given.only)
        seconds: dict[tuple[str, str], list[float]] = {(row, way): [] for row in table for way in table[row]}
        for _ in range(given.rounds):
            for row, way in seconds:
                seconds[row, way].append(table[row][way]())
    report(seconds, images=ways.count, captions=len(ways.texts))


def report(seconds: dict[tuple[str, str], list[float]], *, images: int, captions: int) -> None:
    for (row, way), runs in seconds.items():
        rates = sorted((captions if row == "distilbert" else images) / run for run in runs)
        line = f"{row:<11}{way:<7}{statistics.median(rates):9.1f}/s ({rates[0]:.1f}-{rates[-1]:.1f})"
        if plain := seconds.get((row, "plain")):
            line += f"  {statistics.median(plain) / statistics.median(runs):5.2f} x plain"
        print(line)


if __name__ == "__main__":
    main()
