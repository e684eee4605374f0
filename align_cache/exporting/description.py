"""What an export says of the adapters that it holds or that made it."""

from collections.abc import Callable
from pathlib import Path

from align_cache._version import __version__
from align_cache.adapters.pair import Adapter, AdapterPair
from align_cache.errors import CacheError
from align_cache.results import Record, Run
from align_cache.store import find_one


def describe_adapters(run: Run, pair: AdapterPair, *, cache_dir: Path, note: Callable[[str], None]) -> Record:
    """Say what does not change from one export of a run to the next, so that it can stand inside of files.

    Parameters
    ----------
    cache_dir : Path
        Holds the run's feature sets, which say what made them; what is missing is told to ``note``.

    Returns
    -------
    dict
        As JSON can hold it; docs/export.md lists the keys.
    """
    info = run.info()

    def side(modality: str, adapter: Adapter) -> Record:
        return {
            **info[modality],
            "input": "features" if adapter.tower is None else "ids",
            "identity": _identity(info, modality, cache_dir, note),
        }

    return {
        "adapter": info["adapter"],
        "embed_dim": info["embed_dim"],
        "temperature": pair.temperature.item(),
        "trained_on": info["dataset"],
        "image": side("image", pair.image),
        "text": side("text", pair.text),
        "untrained": info["untrained"],
        "align_cache": __version__,
    }


def _identity(info: Record, modality: str, cache_dir: Path, note: Callable[[str], None]) -> Record | None:
    """Return what decides the encoder: weights, layer, preparation. None where its features are gone."""
    name = f"{info[modality]['encoder']}@{info[modality]['key8']}"
    try:
        return dict(find_one(cache_dir, info["dataset"], name).manifest.identity["encoder"])
    except CacheError as error:
        note(f"the export does not say how its {modality} features are made: {error.message}")
        return None
