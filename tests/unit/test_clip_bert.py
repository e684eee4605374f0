"""The pretrained pair at its true size: CLIP ViT-B/32 and BERT with random weights, saved as on the hub."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from align_cache import EvalConfig, ExtractConfig, evaluate, extract, fit, fit_config
from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, ImageEncoder, TextEncoder
from tests.unit.clip_folder import TEXTS, clip_folder

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "configs" / "clip-bert.toml"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = clip_folder(tmp_path_factory.mktemp("models") / "clip", true_size=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bert(tmp_path: Path, real_data: Path) -> Iterator[Path]:
    folder = tmp_path / "bert"
    torch.manual_seed(1)
    transformers.BertModel(transformers.BertConfig()).save_pretrained(folder)
    shutil.copy(real_data / "bert-base-uncased-vocab" / "vocab.txt", folder)
    yield folder
    shutil.rmtree(folder)


def test_both_towers_of_vit_b32_give_transformers_own_features(clip: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(clip, dtype=torch.float32).eval()
    image, text = (
        load(resolve(EncoderRequest(name, str(clip))), device=CPU, dtype=torch.float32)
        for name in ("clip-vit-b32", "clip-text-b32")
    )
    assert isinstance(image, ImageEncoder)
    assert isinstance(text, TextEncoder)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    inputs = transformers.CLIPImageProcessor.from_pretrained(clip)(
        list(pixels), return_tensors="pt", do_resize=False, do_center_crop=False
    )
    tokens = transformers.CLIPTokenizer.from_pretrained(clip)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected_image = model.get_image_features(**inputs).pooler_output
        expected_text = model.get_text_features(**tokens).pooler_output
    assert torch.allclose(image.encode(pixels), expected_image, atol=1e-4)
    assert torch.allclose(text.encode(TEXTS, batch_size=3)[0], expected_text, atol=1e-4)


def test_the_pair_is_extracted_fitted_and_judged(
    clip: Path, bert: Path, real_data: Path, cache_dir: Path
) -> None:
    request = ExtractConfig(
        dataset="flickr8k", data_dir=real_data / "flickr8k", limit=24, encoders=("clip-vit-b32", "bert"),
        weights={"clip-vit-b32": str(clip), "bert": str(bert)}, device="cpu",
    )  # fmt: skip
    sets = extract(request, cache_dir=cache_dir)
    assert [(each.encoder, each.rows, each.dim, each.untrained) for each in sets] == [
        ("clip-vit-b32", 24, 512, False),
        ("bert", 120, 768, False),
    ]
    small = ("data.batch_size=4", "data.split=fraction", "evaluation.k=3", "optim.epochs=4")
    run = fit(fit_config(file=CONFIG, assignments=small), cache_dir=cache_dir)
    judged = evaluate(run, EvalConfig(split="val", k=3), cache_dir=cache_dir)
    assert judged is not None
