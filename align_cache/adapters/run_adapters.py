"""The pair of adapters that a config describes: new, solved for, or read back from its run."""

from collections.abc import Mapping
from functools import partial
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align_cache.adapters.checkpoint import load_adapters
from align_cache.adapters.layers import Linear
from align_cache.adapters.pair import Adapter, AdapterPair, build_pair
from align_cache.adapters.text_towers import TextTower, TokenTable, build_tower
from align_cache.closed_form import Affine, Solution, TrainingRows, solve_cca, solve_procrustes, solve_ridge
from align_cache.errors import ConfigError, CorruptError
from align_cache.results import Run
from align_cache.settings import AdapterSettings, ClosedForm, FitConfig, fit_config


class Tokens(NamedTuple):
    """What a text tower knows of its vocabulary before it is trained."""

    seen: Tensor
    """Ids that the training captions hold, int64, each once, without the padding."""
    vocabulary_size: int


def new_pair(
    config: FitConfig, image_dim: int, text_dim: int, embed_dim: int, *, tokens: Tokens | None = None
) -> AdapterPair:
    """Make the adapters that a config describes; their weights come from torch's global generator.

    Parameters
    ----------
    tokens : Tokens, optional
        What the text tower is to know, where the config has one; then ``text_dim`` is not looked at.
    """
    adapter, loss = config.adapter, config.loss
    tower = None if tokens is None else _new_tower(adapter, tokens)
    build = partial(
        build_pair,
        image_dim=image_dim,
        text_dim=text_dim if tower is None else tower.width,
        text_tower=tower,
        embed_dim=embed_dim,
        temperature=loss.temperature,
        learn_temperature=loss.learn_temperature,
        bias=config.siglip_bias if loss.contrastive == "siglip" else None,
    )
    match adapter.type:
        case "ridge" | "procrustes" | "cca":
            return build("linear", norm=None)  # an affine map, whose weights are solved for
        case trained:
            return build(
                trained,
                hidden_dims=adapter.mlp_hidden_dims,
                activation=adapter.activation,
                norm=adapter.norm,
                input_norm=adapter.input_norm,
                dropout=adapter.dropout,
                attention_tokens=adapter.attention_tokens,
                attention_width=adapter.attention_width,
                attention_heads=adapter.attention_heads,
                gradient_checkpointing=adapter.gradient_checkpointing,
            )


def _new_tower(adapter: AdapterSettings, tokens: Tokens) -> TextTower:
    assert adapter.text_type is not None  # whoever has tokens looked
    return build_tower(
        adapter.text_type,
        TokenTable(tokens.seen, tokens.vocabulary_size, adapter.token_dim),
        hidden=adapter.text_hidden,
        layers=adapter.text_layers,
        bidirectional=adapter.text_bidirectional,
        pooling=adapter.text_pooling,
        dropout=adapter.dropout,
    )


class Solved(NamedTuple):
    """Adapters that were solved for."""

    pair: AdapterPair
    embed_dim: int
    chosen: dict[str, Any]
    """What was chosen on held-out images or found on the way, as JSON can hold it."""


def solved_pair(config: FitConfig, rows: TrainingRows) -> Solved:
    """Solve for the adapters of a config whose ``adapter.closed_form`` is not None.

    Parameters
    ----------
    rows : TrainingRows
        Of all training images and all of their captions, with the reference's where the run has one. They
        are on the CPU or another device that knows float64.

    Raises
    ------
    ConfigError, ShapeError, NonFiniteError
    """
    assert config.adapter.closed_form is not None  # the caller's question
    solution = _solve(config.adapter.closed_form, config, rows)
    embed_dim, image_dim = solution.image.weight.shape
    pair = new_pair(config, image_dim, solution.text.weight.shape[1], embed_dim).to(rows.image.device)
    for adapter, affine in ((pair.image, solution.image), (pair.text, solution.text)):
        _set_affine(adapter, affine)
    return Solved(pair.eval(), embed_dim, solution.chosen)


def _solve(kind: ClosedForm, config: FitConfig, rows: TrainingRows) -> Solution:
    adapter, seed = config.adapter, config.seed
    if kind == "ridge":
        if rows.reference is not None and adapter.embed_dim not in (None, rows.reference.shape[1]):
            raise ConfigError(
                f"adapter.embed_dim = {adapter.embed_dim}, and ridge predicts the {rows.reference.shape[1]} "
                "components of the reference",
                hint="leave adapter.embed_dim out",
            )
        return solve_ridge(rows, strength=adapter.regularization, seed=seed)
    if kind == "procrustes":
        return solve_procrustes(rows, components=adapter.embed_dim)
    return solve_cca(
        rows,
        components=adapter.embed_dim,
        strength=adapter.regularization,
        power=adapter.cca_power,
        seed=seed,
    )


@torch.no_grad()
def _set_affine(adapter: Adapter, affine: Affine) -> None:
    last = adapter.layers[-1]
    assert isinstance(last, Linear)  # new_pair made it so
    last.weight.copy_(affine.weight)
    last.bias.copy_(affine.bias)


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
    weights, epoch = load_adapters(run.checkpoints, which)
    try:
        pair = filled_pair(config, info["image"]["dim"], info["text"]["dim"], info["embed_dim"], weights)
    except CorruptError as error:
        raise CorruptError(f"the {which} checkpoint of {run.id} is not of its config: {error}") from None
    return pair, epoch


def filled_pair(
    config: FitConfig, image_dim: int, text_dim: int, embed_dim: int, weights: Mapping[str, Tensor]
) -> AdapterPair:
    """Make the adapters that a config describes of weights that are there; in evaluation mode.

    Parameters
    ----------
    weights : mapping of str to tensor
        On the CPU; they become the adapters' own.

    Raises
    ------
    CorruptError
        If they are not the weights of such adapters, or not finite.
    """
    try:
        tokens = None if config.adapter.text_type is None else _tokens_of(weights)
        with torch.device("meta"):  # what a config asks for takes no memory before the weights bear it out
            pair = new_pair(config, image_dim, text_dim, embed_dim, tokens=tokens)
        for name, expected in pair.state_dict().items():
            if weights[name].dtype != expected.dtype:
                raise TypeError(f"{name} is {weights[name].dtype}, expected {expected.dtype}")
        pair.load_state_dict(weights, assign=True)
    except (RuntimeError, LookupError, TypeError) as error:
        raise CorruptError(shorten(f"{type(error).__name__} {error}", 300)) from None
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise CorruptError(f"{name} holds NaN or infinity")
    return pair.eval()


def _tokens_of(weights: Mapping[str, Tensor]) -> Tokens:
    """Read off a checkpoint what its tower knows."""
    place, n_rows = weights["text.tower.table.place"], len(weights["text.tower.table.weight"])
    if place.dim() != 1 or ((place < 0) | (place >= n_rows)).any():
        raise TypeError(f"its ids are not those of {n_rows} token vectors")
    return Tokens(torch.nonzero(place).flatten(), len(place))
