from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from align_cache.encoders import load, resolve, torchvision_
from align_cache.encoders.base import EncoderRequest, ImageEncoder
from align_cache.encoders.images import decode, prepare
from align_cache.encoders.torchvision_ import INPUTS, RESNET18_URL
from align_cache.errors import EncoderError, ShapeError, UsageError

CPU = torch.device("cpu")


def build(name: str, weights: str = "random", dtype: torch.dtype = torch.float32) -> ImageEncoder:
    encoder = load(resolve(EncoderRequest(name, weights)), device=CPU, dtype=dtype)
    assert isinstance(encoder, ImageEncoder)
    return encoder


def pixels(count: int, crop: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, crop, crop), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_the_table_of_inputs_is_torchvisions() -> None:
    from torchvision import models

    published = {}
    for name in models.list_models(module=models):
        transforms = next(iter(models.get_model_weights(name))).transforms()
        published[name] = (transforms.resize_size[0], transforms.crop_size[0], transforms.interpolation.value)
    assert published == INPUTS


def test_resnet18_is_found_where_torchvision_puts_it() -> None:
    from torchvision.models import ResNet18_Weights

    assert ResNet18_Weights.DEFAULT.url == RESNET18_URL
    transforms = ResNet18_Weights.DEFAULT.transforms()
    identity = resolve(EncoderRequest("resnet18", "random")).identity
    assert (identity["mean"], identity["std"]) == (transforms.mean, transforms.std)


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("mobilenet_v2", 1280),
        ("mobilenet_v3_small", 1024),
        ("resnet50", 2048),
        ("efficientnet_b0", 1280),
        ("convnext_tiny", 768),
        ("swin_t", 768),
        ("vit_b_32", 768),
        ("densenet121", 1024),
        ("squeezenet1_1", 512),
        ("shufflenet_v2_x0_5", 1024),
        ("googlenet", 1024),
    ],
)
def test_features_are_the_input_of_the_classifier(name: str, dim: int) -> None:
    encoder = build(f"torchvision:{name}")
    features = encoder.encode(pixels(2, INPUTS[name].crop))
    assert encoder.dim == dim
    assert features.shape == (2, dim)
    assert features.isfinite().all()
    assert (features.norm(dim=1) > 0).all()
    assert not torch.equal(features[0], features[1])


def test_resnet18_is_torchvisions_with_its_preprocessing_and_its_average_pool(tmp_path: Path) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    network = resnet18().eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    levels = np.random.default_rng(0).integers(64, 192, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(levels).resize((400, 300))
    with torch.inference_mode():
        activations = ResNet18_Weights.DEFAULT.transforms()(image)[None]
        for part in list(network.children())[:-2]:
            activations = part(activations)
        expected = activations.mean((2, 3))
    encoder = build("resnet18", str(tmp_path / "w.pth"))
    assert encoder.spec.preprocess is not None
    square = prepare(decode(np.asarray(image), sample_id="a"), encoder.spec.preprocess)
    features = encoder.encode(torch.from_numpy(square)[None])
    assert functional.cosine_similarity(features, expected).item() > 0.9999


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v2", "densenet121", "regnet_y_400mf", "mnasnet0_5", "vgg11_bn", "inception_v3"],
)
def test_folding_batch_norms_changes_rounding_only(name: str) -> None:
    network = torchvision_._build(name)
    torchvision_._remove_classifier(network)
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):  # statistics as of a trained model, not 0 and 1
            part.running_mean = torch.randn(part.num_features, generator=generator)
            part.running_var = torch.rand(part.num_features, generator=generator) + 0.5
    batch = torch.randn(1, 3, INPUTS[name].crop, INPUTS[name].crop, generator=generator)
    with torch.inference_mode():
        plain = network.eval()(batch)
        folded = torchvision_._fold_batch_norms(network)
        assert (
            not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
            or name == "densenet121"
        )
        assert torch.allclose(folded(batch), plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())


def test_one_seed_is_one_model_whatever_was_drawn_before() -> None:
    batch = pixels(2, 224)
    first = build("resnet18", "random:3").encode(batch)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    second = build("resnet18", "random:3").encode(batch)
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, build("resnet18", "random:4").encode(batch))


def test_half_precision_agrees_with_full_and_gives_float32() -> None:
    batch = pixels(3, 224)
    full = build("torchvision:mobilenet_v3_small").encode(batch)
    half = build("torchvision:mobilenet_v3_small", dtype=torch.bfloat16).encode(batch)
    assert half.dtype == torch.float32
    assert functional.cosine_similarity(full, half).min() > 0.99


def test_the_model_is_frozen() -> None:
    features = build("resnet18").encode(pixels(1, 224))
    assert not features.requires_grad
    assert torch.equal(features, build("resnet18").encode(torch.cat([pixels(1, 224)])))


def test_pixels_of_another_shape_or_type_are_refused() -> None:
    encoder = build("torchvision:squeezenet1_1")
    for wrong in (pixels(1, 225), pixels(1, 224).float(), pixels(1, 224)[0]):
        with pytest.raises(ShapeError, match=r"takes uint8 pixels \(n, 3, 224, 224\)"):
            encoder.encode(wrong)
    assert encoder.encode(pixels(0, 224)).shape == (0, 512)


def test_weights_without_the_classifier_or_with_another_one_fill_the_model(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    state = resnet18().state_dict()
    trunk = {key: value for key, value in state.items() if not key.startswith("fc.")}
    batch, results = pixels(1, 224), []
    for number, head in enumerate(({}, {"fc.weight": torch.ones(7, 512), "fc.bias": torch.ones(7)})):
        save_file(trunk | head, tmp_path / f"{number}.safetensors")
        results.append(build("resnet18", str(tmp_path / f"{number}.safetensors")).encode(batch))
    assert torch.equal(*results)


def test_weights_of_another_model_are_refused_with_their_keys(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    save_file(resnet18().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"missing \(.*; .* of another shape \("):
        build("torchvision:resnet50", str(tmp_path / "w.safetensors"))


def test_a_folder_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="takes one file of weights"):
        resolve(EncoderRequest("resnet18", str(tmp_path)))


def test_a_published_file_that_was_tampered_with_is_refused_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import MobileNet_V2_Weights

    canary = tmp_path / "canary"

    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (canary,))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(
        {"features.0.0.weight": Attack()},
        checkpoints / MobileNet_V2_Weights.DEFAULT.url.rpartition("/")[2],
    )
    with pytest.raises(EncoderError, match="cannot be read as weights"):
        build("torchvision:mobilenet_v2", "pretrained")
    assert not canary.exists()


def test_the_identity_follows_weights_and_preprocessing_and_not_the_path(tmp_path: Path) -> None:
    for name in ("one.pth", "two.pth"):
        (tmp_path / name).write_bytes(b"same")
    one, two = (resolve(EncoderRequest("resnet18", str(tmp_path / name))) for name in ("one.pth", "two.pth"))
    assert one.identity == two.identity
    assert not one.untrained
    squashed = resolve(EncoderRequest("resnet18", str(tmp_path / "one.pth"), resize="squash"))
    assert squashed.identity != one.identity
    assert squashed.preprocess is not None
    assert (squashed.preprocess.resize, squashed.preprocess.crop) == (None, 224)
    random = resolve(EncoderRequest("resnet18", "random:5"))
    assert random.untrained
    assert random.identity["weights"] == "random:5"


def test_gap_is_what_resnet18_does_and_any_other_pooling_is_refused() -> None:
    asked, own = (resolve(EncoderRequest("resnet18", "random", pooling=name)) for name in ("gap", None))
    assert asked.identity == own.identity
    with pytest.raises(UsageError, match="has one pooling"):
        resolve(EncoderRequest("torchvision:vit_b_16", "random", pooling="cls"))


def test_the_real_mobilenet_tells_pictures_apart(real_data: Path) -> None:
    file = real_data / "mobilenet_v2-imagenet1k-dequantized.safetensors"
    encoder = build("torchvision:mobilenet_v2", str(file))
    assert not encoder.spec.untrained
    assert encoder.spec.preprocess is not None
    paths = sorted((real_data / "flickr8k" / "Images").glob("*.jpg"))[:6]
    squares = [
        prepare(decode(path.read_bytes(), sample_id=path.name), encoder.spec.preprocess) for path in paths
    ]
    features = functional.normalize(encoder.encode(torch.from_numpy(np.stack(squares))), dim=1)
    assert features.shape == (6, 1280)
    similarity = features @ features.T
    assert similarity.fill_diagonal_(0).max() < 0.95
