"""The adapters' weights in one file, with what is needed to put them together again."""

import json
from pathlib import Path

from align_cache.adapters.pair import AdapterPair
from align_cache.results import Record


def write_safetensors(folder: Path, pair: AdapterPair, description: Record, config: Record) -> None:
    """Write ``adapters.safetensors``: the state of the pair, float32.

    Its header holds one value, ``description``: JSON, with every setting of the run under ``config``. The
    library writes several values in any order, and the same adapters are to be the same bytes.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in pair.state_dict().items()}
    metadata = {"description": json.dumps({**description, "config": config})}
    save_file(tensors, folder / "adapters.safetensors", metadata=metadata)
