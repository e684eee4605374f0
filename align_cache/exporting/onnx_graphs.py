"""Both adapters as ONNX graphs: features or token ids in, unit-norm embeddings out.

A graph is held against torch on random and on real rows before it is published.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from align_cache.adapters.pair import Adapter, AdapterPair, unit
from align_cache.errors import ExportError
from align_cache.exporting.onnx_towers import graph_tower
from align_cache.pairing.embedding import embed
from align_cache.results import Record
from align_cache.store.layout import PAD_ID

TOLERANCE = 1e-4
"""The most that a component of an embedding may be off torch's."""
_OPSET = 20
_RANDOM_ROWS = 257


class Graph(nn.Module):
    """An adapter in the form that is exported: its tower, where it has one, computes all rows at once."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.tower = None if adapter.tower is None else graph_tower(adapter.tower)
        self.layers = adapter.layers

    def forward(self, rows: Tensor) -> Tensor:
        """Embed float32 features (n, input_dim) or int64 ids (n, length): unit-norm (n, embed_dim)."""
        return unit(self.layers(rows if self.tower is None else self.tower(rows)))


def write_onnx(folder: Path, pair: AdapterPair, description: Record, real: Mapping[str, Tensor]) -> Record:
    """Write ``image.onnx`` and ``text.onnx``.

    Parameters
    ----------
    pair : AdapterPair
        In evaluation mode, on the CPU.
    real : mapping of str to tensor
        By modality: rows of the run's features, to be compared on beside random ones; may be empty.

    Returns
    -------
    dict
        By modality what :func:`write_graph` returns.

    Raises
    ------
    ExportError
        If an embedding is off torch's.
    """
    return {
        modality: write_graph(
            folder / f"{modality}.onnx",
            getattr(pair, modality),
            width=description[modality]["dim"],
            metadata={**description, "modality": modality},
            real=real.get(modality),
        )
        for modality in ("image", "text")
    }


def write_graph(
    path: Path, adapter: Adapter, *, width: int, metadata: Record, real: Tensor | None = None
) -> Record:
    """Write one adapter and hold it against torch.

    Parameters
    ----------
    adapter : Adapter
        In evaluation mode, on the CPU.
    width : int
        Features per row, or of token ids the most that a row has room for.
    metadata : dict
        Goes into the file, each value as JSON.
    real : tensor, shape (n, width), optional
        Features or token ids to compare on beside random ones.

    Returns
    -------
    dict
        ``random_rows`` and ``real_rows`` that were compared, and ``largest_difference`` of a component
        between onnxruntime and torch.

    Raises
    ------
    ExportError
        If it is more than 1e-4.
    """
    random = _random_rows(adapter, width)
    _write(path, adapter, random, metadata)
    known = [] if real is None else [real]
    shapes = [random, random[:1], *([random[:, :1]] if adapter.tower is not None else [])]
    return {
        "random_rows": len(random),
        "real_rows": sum(map(len, known)),
        "largest_difference": _compare(path, adapter, [*shapes, *known]),
    }


def _random_rows(adapter: Adapter, width: int) -> Tensor:
    """Draw unit-norm features (n, width), or ids of captions of all lengths, padded to ``width``."""
    generator = torch.Generator().manual_seed(0)
    if adapter.tower is None:
        return unit(torch.randn(_RANDOM_ROWS, width, generator=generator))
    vocabulary_size = len(adapter.tower.table.place)
    ids = torch.randint(PAD_ID + 1, vocabulary_size, (_RANDOM_ROWS, width), generator=generator)
    lengths = torch.randint(1, width + 1, (_RANDOM_ROWS, 1), generator=generator)
    return torch.where(torch.arange(width) < lengths, ids, PAD_ID)


def _write(path: Path, adapter: Adapter, example: Tensor, metadata: Record) -> None:
    """Export one graph, for any number of rows, and of ids for any length."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    tokens = adapter.tower is not None
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    program = torch.onnx.export(
        Graph(adapter).eval(),
        (example,),
        input_names=["ids" if tokens else "features"],
        output_names=["embeddings"],
        dynamic_shapes=({0: batch, 1: length} if tokens else {0: batch},),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # as documented of dynamo=True
    ClearMetadataAndDocStringPass()(program.model)  # lines of code and where they lie on this machine
    program.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    program.save(path, external_data=False)


@torch.inference_mode()
def _compare(path: Path, adapter: Adapter, batches: Sequence[Tensor]) -> float:
    """Return the largest difference between the file's embeddings and torch's; refuse one above tolerance."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    worst = 0.0
    for rows in batches:
        (found,) = session.run(None, {taken.name: rows.numpy()})
        expected = embed(adapter, rows).numpy()
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)))
    if not worst <= TOLERANCE:  # NaN is no agreement either
        raise ExportError(
            f"{path.name} gives embeddings that differ from torch's by {worst:.2g}, expected at most "
            f"{TOLERANCE:g}: nothing is written"
        )
    return worst
