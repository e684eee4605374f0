"""From a training config to the parts of a run: data, batches, adapters, what trains them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from align_cache.adapters.pair import AdapterPair
from align_cache.adapters.run_adapters import Tokens, new_pair, solved_pair
from align_cache.closed_form import TrainingRows
from align_cache.errors import ConfigError
from align_cache.pairing.batches import Batches
from align_cache.pairing.embedding import Inputs, Where, open_inputs
from align_cache.pairing.pairs import PairedFeatures, Pairs, Splits, join, split_pairs
from align_cache.pairing.visiting import Order
from align_cache.probes.probing import ProbeSets, open_probe_sets
from align_cache.runtime import memory_bytes, resolve_device, resolve_precision
from align_cache.settings import FitConfig
from align_cache.store import FeatureSet, open_feature_set
from align_cache.store.layout import PAD_ID
from align_cache.training.member import Member
from align_cache.training.new_member import new_member

_DEFAULT_EMBED_DIM = 768


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run works with."""

    device: torch.device
    precision: Literal["fp32", "bf16"]
    joined: PairedFeatures
    splits: Splits
    batches: Batches
    embed_dim: int
    chosen: Mapping[str, Any] | None
    """What a closed form chose; None where the adapters are trained."""
    inputs: Inputs
    member: Member
    probe_sets: ProbeSets | None
    reading_notes: tuple[str, ...] = ()
    """On features that exceed memory."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided on the way, for the user."""
        return (*self.joined.notes, *self.splits.notes, *self.batches.notes, *self.reading_notes)


class Opened:
    """Feature sets of a cache that were opened and read, for every run that asks for the same.

    Parameters
    ----------
    cache_dir : Path
    whole : bool
        Whether many runs are to come: then all rows are read at once, else those that the run trains and
        validates on.
    """

    def __init__(self, cache_dir: Path, *, whole: bool = False) -> None:
        self.cache_dir, self._whole = cache_dir, whole
        self._joined: dict[tuple[str | None, ...], PairedFeatures] = {}
        self._inputs: dict[tuple[int, str, Where], Inputs] = {}

    def join(self, dataset: str, image: str, text: str, reference: str | None) -> PairedFeatures:
        """Open and join three feature sets of a dataset."""
        key = (dataset, image, text, reference)
        if key not in self._joined:
            opened = partial(open_feature_set, dataset, cache_dir=self.cache_dir)
            image_set, text_set = opened(image), opened(text)
            self._joined[key] = join(image_set, text_set, None if reference is None else opened(reference))
        return self._joined[key]

    def inputs(self, joined: PairedFeatures, splits: Splits, *, device: torch.device, where: Where) -> Inputs:
        """Make the features of the pairs that train and validate ready to be read."""
        if not self._whole:
            return open_inputs(joined, splits.train, splits.val, device=device, where=where)
        key = (id(joined), str(device), where)
        if key not in self._inputs:
            self._inputs[key] = open_inputs(joined, joined.pairs, device=device, where=where)
        return self._inputs[key]


def assemble(config: FitConfig, opened: Opened, info: Mapping[str, Any] | None = None) -> Parts:
    """Open the data and build what is trained; every misfit is found here, before work begins.

    Parameters
    ----------
    config : FitConfig
    opened : Opened
        Of the cache that holds the feature sets; what other runs have opened already is not read again.
    info : mapping, optional
        ``run.json`` of a run to go on with, which must find the very feature sets it began with.

    Raises
    ------
    AlignCacheError
    """
    device = resolve_device(config.device)
    if config.cuda_graph and device.type != "cuda":
        raise ConfigError(f"cuda_graph = true, and the adapters train on {device}")
    joined = opened.join(config.data.dataset, *_names(config, info))
    _check_text(config, joined.text)
    splits = _split(config, joined)
    _check_k(config.evaluation.k, min(splits.val.n_images, config.evaluation.num_images))
    batches = _batches(config, splits)
    inputs = opened.inputs(joined, splits, device=device, where=config.data.rows)
    pair, embed_dim, chosen = _pair(config, joined, splits.train, inputs, device)
    return Parts(
        device=device,
        precision=resolve_precision(info["precision"] if info else config.precision, device),
        joined=joined,
        splits=splits,
        batches=batches,
        embed_dim=embed_dim,
        chosen=chosen,
        inputs=inputs,
        member=new_member(config, pair, batches.steps_per_epoch, device),
        probe_sets=_probe_sets(config, joined, opened.cache_dir),
        reading_notes=_reading_notes(config.data.order, inputs),
    )


def _reading_notes(order: Order, inputs: Inputs) -> tuple[str, ...]:
    """Say where reading row by row waits for the disk."""
    found, memory = inputs.mapped_bytes, memory_bytes()
    if order == "blocks" or found <= memory:
        return ()
    return (
        f"the features take {found / 1e9:,.0f} GB and the machine has {memory / 1e9:,.0f}: with data.order = "
        "blocks they are read in long stretches",
    )


def _pair(
    config: FitConfig, joined: PairedFeatures, train: Pairs, inputs: Inputs, device: torch.device
) -> tuple[AdapterPair, int, dict[str, Any] | None]:
    """Make the adapters, solved for or new; with their width, and what was chosen on the way."""
    if config.adapter.closed_form is not None:
        _check_fits(config.adapter.closed_form, joined, train)
        image_of_text = torch.from_numpy(train.caption_image).to(device)
        reference = None
        if inputs.reference is not None and train.reference_rows is not None:
            reference = inputs.reference.take(train.reference_rows)
        image, text = inputs.image.take(train.image_rows), inputs.text.take(train.caption_rows)
        return solved_pair(config, TrainingRows(image, text, image_of_text, reference))
    torch.manual_seed(config.seed)
    embed_dim = _embed_dim(config, joined)
    tokens = None if config.adapter.text_type is None else _tokens(joined, train, inputs)
    pair = new_pair(config, joined.image.dim, joined.text.dim, embed_dim, tokens=tokens).to(device)
    pair.image.observe(lambda: inputs.image.blocks(train.image_rows))
    if tokens is None:
        pair.text.observe(lambda: inputs.text.blocks(train.caption_rows))
    return pair, embed_dim, None


def _check_fits(closed_form: str, joined: PairedFeatures, train: Pairs) -> None:
    """Refuse to solve with more rows than memory holds; as float32 they are all there at once."""
    needed = 4 * (train.n_images * joined.image.dim + train.n_captions * joined.text.dim)
    if needed > memory_bytes():
        raise ConfigError(
            f"{closed_form} solves with all training rows at once: {needed / 1e9:,.0f} GB as float32, and "
            f"the machine has {memory_bytes() / 1e9:,.0f}",
            hint="--num-samples N, or an adapter that is trained: --adapter linear",
        )


def _tokens(joined: PairedFeatures, train: Pairs, inputs: Inputs) -> Tokens:
    """Look which tokens the training captions hold."""
    assert joined.text.vocabulary_size is not None  # of a set of token ids
    blocks = inputs.text.blocks(train.caption_rows)
    seen = torch.unique(torch.cat([torch.unique(block) for block in blocks]))
    return Tokens(seen[seen != PAD_ID].cpu(), joined.text.vocabulary_size)


def _check_text(config: FitConfig, text: FeatureSet) -> None:
    """Refuse token ids without a tower, and a tower without token ids.

    Raises
    ------
    ConfigError
    """
    tower = config.adapter.text_type
    if text.holds_tokens and tower is None:
        raise ConfigError(
            f"{text.name} holds token ids, which a text tower has to read", hint="--text-adapter lstm, or bow"
        )
    if tower is not None and not text.holds_tokens:
        raise ConfigError(
            f"adapter.text_type = {tower} reads token ids, and {text.name} holds features",
            hint="--text-encoder tokens, after align-cache extract --encoder tokens",
        )


def _names(config: FitConfig, info: Mapping[str, Any] | None) -> tuple[str, str, str | None]:
    """Name the feature sets; a resumed run reads the very sets it began with."""
    data = config.data
    named = {"image": data.image_encoder, "text": data.text_encoder, "reference": data.reference}
    if info is not None:
        exact = {role: info[role] and f"{info[role]['encoder']}@{info[role]['key8']}" for role in named}
        return exact["image"], exact["text"], exact["reference"]
    return data.image_encoder, data.text_encoder, data.reference


def _split(config: FitConfig, joined: PairedFeatures) -> Splits:
    data = config.data
    return split_pairs(
        joined,
        how=data.split,
        val_fraction=data.val_fraction,
        num_samples=data.num_samples,
        train_fraction=data.train_fraction,
        seed=config.seed,
    )


def _batches(config: FitConfig, splits: Splits) -> Batches:
    return Batches(
        splits.train,
        batch_size=config.data.batch_size,
        accumulation=config.optim.gradient_accumulation_steps,
        captions_per_image=config.data.captions_per_image,
        seed=config.seed,
        mixup=config.data.mixup,
        order=config.data.order,
    )


def _probe_sets(config: FitConfig, joined: PairedFeatures, cache_dir: Path) -> ProbeSets | None:
    if config.evaluation.probe is None:
        return None
    return open_probe_sets(cache_dir, config.evaluation.probe, image=joined.image, reference=joined.reference)


def _embed_dim(config: FitConfig, joined: PairedFeatures) -> int:
    reference = joined.reference
    embed_dim = config.adapter.embed_dim or (reference.dim if reference is not None else _DEFAULT_EMBED_DIM)
    if config.loss.distribution_matching and reference is not None and embed_dim != reference.dim:
        raise ConfigError(
            f"adapter.embed_dim = {embed_dim}, and {reference.name} has {reference.dim} dimensions: "
            "their variances are matched one by one",
            hint="leave adapter.embed_dim out, or set loss.distribution_matching=false",
        )
    return embed_dim


def _check_k(k: int, n: int) -> None:
    if k >= n:
        raise ConfigError(f"evaluation.k = {k} neighbours, and only {n} images validate",
                          hint=f"set evaluation.k below {n}")  # fmt: skip
