"""A trained pair of adapters, read back from its run."""

from align_cache.adapters import AdapterPair, build_pair
from align_cache.checkpoint import load_adapters
from align_cache.errors import CorruptError
from align_cache.results import Run
from align_cache.settings import FitConfig, fit_config


def new_pair(config: FitConfig, image_dim: int, text_dim: int, embed_dim: int) -> AdapterPair:
    """Make the adapters that a config describes; their weights come from torch's global generator."""
    adapter = config.adapter
    return build_pair(
        adapter.type,
        image_dim=image_dim,
        text_dim=text_dim,
        embed_dim=embed_dim,
        temperature=config.loss.temperature,
        learn_temperature=config.loss.learn_temperature,
        hidden_dims=adapter.mlp_hidden_dims,
        activation=adapter.activation,
        layer_norm=adapter.layer_norm,
        dropout=adapter.dropout,
        gradient_checkpointing=adapter.gradient_checkpointing,
    )


def load_pair(run: Run, which: str = "best") -> tuple[AdapterPair, int]:
    """Load the adapters of a run in evaluation mode, and the epoch they are of.

    Parameters
    ----------
    which : {"best", "last"}

    Raises
    ------
    RunError, CorruptError
    """
    info = run.info()
    config = fit_config(file=run.folder / "config.toml")
    pair = new_pair(config, info["image"]["dim"], info["text"]["dim"], info["embed_dim"])
    weights, epoch = load_adapters(run.checkpoints, which)
    try:
        pair.load_state_dict(weights)
    except RuntimeError as error:
        raise CorruptError(f"the {which} checkpoint of {run.id} is not of its config: {error}") from None
    return pair.eval(), epoch
