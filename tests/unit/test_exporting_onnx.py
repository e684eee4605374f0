"""Adapters as ONNX graphs: every architecture against torch, at sizes that the export has not seen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align_cache.adapters.pair import build_adapter, unit
from align_cache.adapters.run_adapters import load_pair
from align_cache.adapters.text_towers import BagOfTokens, Lstm, TextTower, TokenTable
from align_cache.errors import ExportError
from align_cache.exporting import export, onnx_graphs
from align_cache.exporting.onnx_graphs import write_graph
from align_cache.training.fitting import fit
from tests.unit.stored import paired_sets
from tests.unit.test_fit import toy

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

HEADS: dict[str, dict[str, Any]] = {
    "linear": {"norm": "layer", "input_norm": "standardize", "dropout": 0.2},
    "mlp": {"norm": "rms", "input_norm": "layer", "hidden_dims": (9, 7), "activation": "relu"},
    "residual": {"norm": None, "hidden_dims": (9,)},
    "attention": {
        "norm": "rms",
        "hidden_dims": (9,),
        "attention_tokens": 3,
        "attention_width": 6,
        "attention_heads": 2,
    },
}


def embedded(path: Path, rows: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    (taken,) = session.get_inputs()
    (found,) = session.run(None, {taken.name: rows.numpy()})
    return np.asarray(found)


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_gives_torchs_embeddings_for_any_number_of_rows(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapter = build_adapter(kind, 12, 8, **HEADS[kind]).eval()
    adapter.observe(lambda: [2.0 + 3.0 * torch.randn(50, 12)])
    with torch.no_grad():  # gains and shifts that are not those of a new layer
        for parameter in adapter.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    path = tmp_path / "image.onnx"
    assert write_graph(path, adapter, width=12, metadata={})["largest_difference"] < 1e-5
    for n in (1, 2, 300):
        rows = unit(torch.randn(n, 12))
        with torch.inference_mode():
            expected = unit(adapter(rows))
        np.testing.assert_allclose(embedded(path, rows), expected, rtol=0, atol=1e-5)


def table() -> TokenTable:
    return TokenTable(torch.arange(1, 30, 2), 40, 6)


TOWERS = {
    "bow": lambda: BagOfTokens(table(), dropout=0.1),
    **{
        f"lstm-{pooling}-{'both' if both else 'one'}": lambda pooling=pooling, both=both: Lstm(
            table(), hidden=5, layers=2, bidirectional=both, pooling=pooling, dropout=0.1
        )
        for pooling, both in (("last", True), ("last", False), ("mean", True), ("max", False))
    },
}


@pytest.mark.parametrize("name", TOWERS)
def test_every_text_tower_reads_ids_of_any_length_however_they_are_padded(name: str, tmp_path: Path) -> None:
    """Captions of one to nine tokens, some of them unknown, side by side; more padding changes nothing."""
    torch.manual_seed(0)
    tower: TextTower = TOWERS[name]()
    adapter = build_adapter("linear", tower.width, 8, tower=tower, norm=None).eval()
    path = tmp_path / "text.onnx"
    write_graph(path, adapter, width=9, metadata={})
    lengths = torch.arange(1, 10)
    ids = torch.where(torch.arange(9) < lengths[:, None], torch.randint(1, 40, (9, 9)), 0)
    with torch.inference_mode():
        expected = unit(adapter(ids))
    for given in (ids, torch.nn.functional.pad(ids, (0, 4))):
        np.testing.assert_allclose(embedded(path, given), expected, rtol=0, atol=1e-5)
    alone = np.concatenate([embedded(path, ids[i : i + 1, : i + 1]) for i in range(9)])
    np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-5)


def test_a_graph_that_disagrees_with_torch_is_not_published(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paired_sets(cache_dir)
    run = fit(toy(optim__epochs=2), cache_dir=cache_dir)
    forward = onnx_graphs.Graph.forward
    monkeypatch.setattr(onnx_graphs.Graph, "forward", lambda self, rows: forward(self, rows) + 2e-4)
    with pytest.raises(ExportError, match=r"image.onnx gives embeddings that differ from torch's by 0.0002"):
        export(run, to="onnx", cache_dir=cache_dir)
    assert not list((run.folder / "exports").iterdir())


def test_a_run_is_held_against_its_own_features_and_named_in_the_file(cache_dir: Path) -> None:
    """A closed form, whose features are there and then are not."""
    image, *_ = paired_sets(cache_dir)
    run = fit(toy(adapter__type="procrustes", loss__variance_weight=0.0), cache_dir=cache_dir)
    record = export(run, to="onnx", cache_dir=cache_dir)
    assert [record["compared"][modality]["real_rows"] for modality in ("image", "text")] == [60, 180]
    path = Path(record["folder"]) / "image.onnx"
    said = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(said["run"]) == run.id
    assert json.loads(said["modality"]) == "image"
    assert json.loads(said["image"])["dim"] == 12
    assert b".py" not in path.read_bytes(), "nothing of the machine that exported it"
    rows = torch.from_numpy(image.take(np.arange(7))).float()
    with torch.inference_mode():
        expected = unit(load_pair(run)[0].image(rows))
    np.testing.assert_allclose(embedded(path, rows), expected, rtol=0, atol=1e-5)

    (image.folder / "manifest.json").unlink()
    notes: list[str] = []
    again = export(run, to="onnx", cache_dir=cache_dir, overwrite=True, on_note=notes.append)
    assert again["compared"]["image"]["real_rows"] == 0
    assert any("random rows alone" in note for note in notes)
