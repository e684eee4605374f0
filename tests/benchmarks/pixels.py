"""Ways from a JPEG to a model's 224 x 224 pixels: time of one processor, levels apart, features apart.

    ALIGN_CACHE_TEST_DATA=DIR python tests/benchmarks/pixels.py [--images 48] [--rounds 5]

Real photographs as they lie (224 x 224) and enlarged to 500 x 375; the shorter side goes to 256, bicubic,
and the centre is cut out. `model` is what extract does, `fast` what it does with --decode fast. Features are
those of a pretrained MobileNetV2 in fp32: the least cosine to those of `model`. Times are processor time, so
that other work on the machine matters less. At the end, CIFAR-10: Pillow enlarges its PNGs one by one, torch
64 together.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, Preprocess
from align_cache.encoders.fast_images import decode_fast, prepare_fast
from align_cache.encoders.fast_images import resize as resize_together
from align_cache.encoders.images import decode, prepare
from align_cache.sources import open_source

PREPROCESS = Preprocess(256, 224, "bicubic")
Way = Callable[[bytes], NDArray[np.uint8]]


def whole_then_cropped(data: bytes) -> NDArray[np.uint8]:
    image = decode(data, sample_id="")
    scale = 256 / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.array(image.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)


def drafted(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (256, 256))
        return prepare(image.convert("RGB"), PREPROCESS)


def scaled(data: bytes) -> NDArray[np.uint8]:
    pixels = simplejpeg.decode_jpeg(data, min_height=256, min_width=256, min_factor=1)
    return prepare_fast(pixels.transpose(2, 0, 1), PREPROCESS)


WAYS: dict[str, Way] = {
    "Pillow, all resized, then cropped": whole_then_cropped,
    "model: Pillow, the crop alone": lambda data: prepare(decode(data, sample_id=""), PREPROCESS),
    "Pillow, draft mode": drafted,
    "Pillow, torch resizes": lambda data: prepare_fast(pixels_of(decode(data, sample_id="")), PREPROCESS),
    "fast: simplejpeg, torch resizes": lambda data: prepare_fast(decode_fast(data, sample_id=""), PREPROCESS),
    "simplejpeg scaled, torch resizes": scaled,
    "Pillow decodes, nothing else": lambda data: pixels_of(decode(data, sample_id="")),
    "simplejpeg decodes, nothing else": lambda data: decode_fast(data, sample_id=""),
}


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    return np.array(image).transpose(2, 0, 1)


def milliseconds(call: Callable[[], object], each: int) -> float:
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start) / each


def compare(title: str, files: list[bytes], encoder: object, rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            times[name].append(milliseconds(lambda way=way: [way(data) for data in files], len(files)))
    own = np.stack([WAYS["model: Pillow, the crop alone"](data) for data in files])
    own_features = encoder.encode(torch.from_numpy(own))
    print(title)
    for name, way in WAYS.items():
        low, middle, high = min(times[name]), statistics.median(times[name]), max(times[name])
        line = f"  {name:<34}{middle:6.2f} ms ({low:.2f}-{high:.2f})"
        if "nothing else" not in name:
            pixels = np.stack([way(data) for data in files])
            apart = np.abs(pixels.astype(int) - own)
            cosine = torch.nn.functional.cosine_similarity(
                own_features, encoder.encode(torch.from_numpy(pixels))
            )
            line += f"  levels {apart.mean():.4f}, at most {apart.max()}; cosine >= {cosine.min():.6f}"
        print(line)


def cifar(data: Path, rounds: int) -> None:
    source = open_source("cifar10", data_dir=data / "cifar10")
    files = [source.read_image(row) for row in range(64)]
    raw = np.stack([np.array(decode(file, sample_id="")) for file in files])
    together = torch.from_numpy(raw).permute(0, 3, 1, 2)
    table = {
        "decode": lambda: [decode(file, sample_id="") for file in files],
        "Pillow enlarges": lambda: [prepare(Image.fromarray(image), PREPROCESS) for image in raw],
        "torch enlarges 64 together": lambda: resize_together(together, PREPROCESS),
    }
    print("CIFAR-10, an image")
    for name, call in table.items():
        runs = [milliseconds(call, len(files)) for _ in range(rounds)]
        print(f"  {name:<34}{statistics.median(runs):6.3f} ms ({min(runs):.3f}-{max(runs):.3f})")
    pillow = np.stack([prepare(Image.fromarray(image), PREPROCESS) for image in raw]).astype(int)
    apart = np.abs(resize_together(together, PREPROCESS).numpy() - pillow)
    print(f"  levels {apart.mean():.4f}, at most {apart.max()}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ["ALIGN_CACHE_TEST_DATA"])
    weights = data / "mobilenet_v2-imagenet1k-dequantized.safetensors"
    spec = resolve(EncoderRequest("torchvision:mobilenet_v2", str(weights)))
    encoder = load(spec, device=torch.device("cpu"), dtype=torch.float32)
    small = [
        path.read_bytes() for path in sorted((data / "flickr8k" / "Images").glob("*.jpg"))[: given.images]
    ]
    large = []
    for file in small:
        buffer = io.BytesIO()
        image = decode(file, sample_id="").resize((500, 375), Image.Resampling.BICUBIC)
        image.save(buffer, "JPEG", quality=92)
        large.append(buffer.getvalue())
    compare("224 x 224", small, encoder, given.rounds)
    compare("500 x 375", large, encoder, given.rounds)
    cifar(data, given.rounds)


if __name__ == "__main__":
    main()
