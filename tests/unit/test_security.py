"""What docs/security.md claims and no other test shows: what is read neither runs nor blows up."""

import ast
import json
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import align_cache
from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest
from align_cache.encoders.images import FORMATS, decode
from align_cache.errors import AlignCacheError, EncoderError, SampleError, SourceError
from align_cache.extraction.external import import_features
from align_cache.extraction.extracting import extract
from align_cache.settings import ExtractConfig
from align_cache.sources import open_source

PACKAGE = Path(align_cache.__file__).parent


@cache
def modules() -> list[tuple[str, ast.Module]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(str(path.relative_to(PACKAGE)), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call of the package: its module, the dotted name of what is called, the call."""
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield name, ast.unparse(node.func), node


def test_nothing_in_the_package_can_run_what_it_reads() -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path"}
    roots = {"marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml", "subprocess", "runpy", "pickle"}
    found = [
        f"{module}: {called}"
        for module, called, _ in calls()
        if called in forbidden or called.partition(".")[0] in roots
    ]
    assert found == []


def test_pickles_are_imported_by_the_reader_of_cifar10_alone() -> None:
    importing = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and any(alias.name == "pickle" for alias in node.names)
    }
    assert importing == {"sources/cifar10_batches.py"}, "whose unpickler admits three names"


def keyword(call: ast.Call, name: str) -> object:
    values = [ast.literal_eval(word.value) for word in call.keywords if word.arg == name]
    return values[0] if values else None


def test_torch_loads_weights_only_and_numpy_no_pickles() -> None:
    asked = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
    loading = [(called, call) for _, called, call in calls() if called in asked]
    assert len(loading) >= 4
    for called, call in loading:
        name, value = asked[called]
        assert keyword(call, name) is value, ast.unparse(call)


def test_code_that_comes_with_a_model_is_never_trusted() -> None:
    loading = [
        call
        for _, called, call in calls()
        if called.endswith(".from_pretrained") and called != "AlignedModel.from_pretrained"  # holds no code
    ]
    assert loading
    for call in loading:
        assert keyword(call, "trust_remote_code") is False, ast.unparse(call)
        assert keyword(call, "local_files_only") is True, ast.unparse(call)


def test_code_in_a_models_folder_does_not_run(tmp_path: Path) -> None:
    config = {
        "model_type": "their-own", "vocab_size": 9, "hidden_size": 4, "architectures": ["Theirs"],
        "auto_map": {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    with pytest.raises((AlignCacheError, ValueError), match=r"their-own|trust_remote_code"):
        load(
            resolve(EncoderRequest("hf:their/own", str(tmp_path))),
            device=torch.device("cpu"), dtype=torch.float32,
        )  # fmt: skip
    assert not (tmp_path / "ran").exists()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n(out) (w) file\n%%EOF\n"


def test_no_image_starts_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand an EPS file, whatever it is called, to Ghostscript, which runs it."""
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail(f"started {args}"))
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    with Image.open(BytesIO(EPS)) as image:
        assert image.format == "EPS", "the attack has to work on plain Pillow"
    with pytest.raises(SampleError, match="are no JPEG, PNG, GIF"):
        decode(EPS, sample_id="a.jpg")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_that_is_admitted_can_be_read(form: str) -> None:
    buffer = BytesIO()
    Image.new("RGB", (9, 8), (200, 10, 10)).save(buffer, form)
    assert decode(buffer.getvalue(), sample_id="a").size == (9, 8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("kind", "head"), [(b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")], ids=str
)
def test_a_png_whose_texts_expand_a_thousandfold_is_refused(kind: bytes, head: bytes) -> None:
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    png, bomb = buffer.getvalue(), chunk(kind, head + zlib.compress(bytes(20_000_000), 9))
    with pytest.raises(SampleError, match="too large"):
        decode(png[:33] + bomb + png[33:], sample_id="a")


def test_a_png_that_claims_four_gigapixels_is_refused_before_they_are_asked_for() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 65_535, 65_535, 8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    with pytest.raises(SampleError, match=r"65535 x 65535 pixels|decompression bomb"):
        decode(png, sample_id="a")


def test_an_npz_that_expands_a_thousandfold_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    features = BytesIO()
    np.lib.format.write_array_header_1_0(
        features, {"descr": "<f4", "fortran_order": False, "shape": (70_000_000, 1)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            file.write(features.getvalue())
            for _ in range(70):
                file.write(bytes(4_000_000))
        archive.writestr("sample_id.npy", b"")
    assert path.stat().st_size < 1_000_000
    with pytest.raises(SourceError, match=r"mine\.npz expands from .* to .* MB"):
        import_features(path, dataset="d", encoder="e", modality="image", cache_dir=tmp_path)


def test_an_index_of_weights_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 5}))
    (tmp_path / "outside.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(EncoderError, match="not all parts of the weights are in the folder"):
            resolve(EncoderRequest("hf:their/own", str(folder)))


def test_the_path_in_a_parquet_file_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    rows = {
        "image": [
            {"bytes": None, "path": str(tmp_path / "secret.jpg")},
            {"bytes": b"own", "path": "../b.jpg"},
        ],
        "caption": [["a"], ["b"]],
        "filename": ["a.jpg", "b.jpg"],
    }
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "data" / "train-00000-of-00001.parquet")
    source = open_source("flickr30k", data_dir=tmp_path / "data")
    with pytest.raises(SampleError, match=r"a\.jpg: row 0 .* holds no image"):
        source.read_image(0)
    assert source.read_image(1) == b"own"


def test_an_extraction_starts_no_process(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are decoded in threads: there is no worker that could be killed, nor one to start code in."""
    for name in ("fork", "posix_spawn", "forkpty"):
        monkeypatch.setattr(f"os.{name}", lambda *args, **options: pytest.fail(f"started {args}"))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail(f"started {args}"))
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", lambda self: pytest.fail("started"))
    config = ExtractConfig(
        dataset="shapes", encoders=("small-cnn", "tokens"), weights={"small-cnn": "random"},
        options={"count": 6}, device="cpu", workers=2,
    )  # fmt: skip
    assert [done.rows for done in extract(config, cache_dir=cache_dir)] == [6, 30]
