"""Stage 3: judge a run on features it was not trained on, and append the result to its folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align_cache.adapters.pair import AdapterPair
from align_cache.adapters.run_adapters import load_pair
from align_cache.errors import UsageError
from align_cache.judging.gallery import gallery_record
from align_cache.judging.run_features import choose_split, one_model, open_run_features
from align_cache.judging.zero_shot import ZeroShotSets, classify_by_prompts, open_zero_shot_sets
from align_cache.metrics.summary import Summary, margins, summarise
from align_cache.pairing.embedding import embed_pairs, embedding_views, feature_views, open_inputs
from align_cache.pairing.pairs import PairedFeatures, Pairs
from align_cache.probes.probing import ProbeSets, open_probe_sets, probe_run, relative
from align_cache.results import Record, Run
from align_cache.runtime import now, resolve_device
from align_cache.settings import EvalConfig, FitConfig, fit_config

_MOST_IMAGES = 200_000


def evaluate(
    run: Run,
    config: EvalConfig,
    *,
    cache_dir: Path = Path("cache"),
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Judge raw features and embeddings of one split: alignment, retrieval, spread, hypotheses, classes.

    Parameters
    ----------
    run : Run
        A run with a checkpoint.
    config : EvalConfig
    cache_dir : Path
        Holds the feature sets the run was trained on, the probe's and those for zero-shot.
    on_stage : callable, optional
        Told what is being done.
    on_progress : callable, optional
        Told how many splits (for intervals) and shuffles (for the null) are done, and of how many.

    Returns
    -------
    dict
        The record that was appended to ``results.jsonl``; docs/metrics.md defines every number.

    Raises
    ------
    AlignCacheError

    Examples
    --------
    >>> from align_cache import EvalConfig, evaluate, find_run
    >>> run = find_run()
    >>> record = evaluate(run, EvalConfig(k=3), cache_dir=Path("cache"))
    >>> record["split"], record["n_images"], record["n_captions"]
    ('test', 6, 30)
    >>> sorted(record["embeddings"]["retrieval"]["text_to_image"])[:3]
    ['intervals', 'median_rank', 'mrr']
    """
    say = on_stage or (lambda stage: None)
    info, trained = run.info(), fit_config(file=run.folder / "config.toml")
    say("opening the features")
    joined = open_run_features(info, trained, cache_dir)
    split, pairs = choose_split(joined, trained, config.split)
    pairs = _bounded(pairs, split, limit=config.limit, seed=config.seed)
    if config.k >= pairs.n_images:
        raise UsageError(f"k = {config.k} neighbours, and the {split} split has {pairs.n_images} images")
    probe_sets = _probe_sets(config, joined, cache_dir)
    zero_shot_sets = _zero_shot_sets(config, joined, cache_dir)
    pair, epoch = load_pair(run, config.checkpoint)
    pair.to(resolve_device(config.device))
    shuffles = f", {config.permutations} shuffles for each metric and pair" if config.permutations else ""
    say(f"measuring features and embeddings{shuffles}")
    measure = partial(
        summarise,
        k=config.k,
        metrics=config.metrics,
        intervals=True,
        permutations=config.permutations,
        seed=config.seed,
    )
    record: Record = {
        "kind": "evaluation",
        "created": now(),
        "run": run.id,
        "checkpoint": config.checkpoint,
        "epoch": epoch,
        "split": split,
        "n_images": pairs.n_images,
        "n_captions": pairs.n_captions,
        "k": config.k,
        "permutations": config.permutations,
        "seed": config.seed,
        **_summaries(
            joined,
            pairs,
            pair,
            measure,
            device=resolve_device(config.device),
            gallery_seed=config.seed,
            tell=on_progress or (lambda done, total: None),
        ),
        "probe": None,
        "zero_shot": None,
        "untrained": info["untrained"],
        "notes": list(joined.notes),
    }
    if probe_sets is not None:
        record["probe"] = _probe(config, trained, probe_sets, pair, say)
    if zero_shot_sets is not None:
        say(f"classifying {zero_shot_sets.name} by its prompts")
        record["zero_shot"] = classify_by_prompts(
            pair, zero_shot_sets, same_space=one_model(joined), device=resolve_device(config.device)
        )
    run.append_result(record)
    return record


def _bounded(pairs: Pairs, split: str, *, limit: int | None, seed: int) -> Pairs:
    """Draw the images to judge where there are more than ``limit``.

    Raises
    ------
    UsageError
        If there is no limit, and more images than can be compared all with all.
    """
    n = pairs.n_images
    if limit is None and n > _MOST_IMAGES:
        raise UsageError(
            f"the {split} split has {n:,} images, and all are compared with all: at most {_MOST_IMAGES:,} "
            "unless a limit is named",
            hint="--limit 10000 draws so many",
        )
    if limit is None or n <= limit:
        return pairs
    return pairs.subset(np.sort(np.random.default_rng(seed).permutation(n)[:limit]))


def _summaries(
    joined: PairedFeatures,
    pairs: Pairs,
    pair: AdapterPair,
    measure: Callable[..., Summary],
    *,
    device: torch.device,
    gallery_seed: int,
    tell: Callable[[int, int], None],
) -> Record:
    """Measure raw features and embeddings of the same pairs, and draw the gallery of the embeddings."""
    inputs = open_inputs(joined, pairs, device=device)
    owner = pairs.caption_image
    views, captions = feature_views(inputs, pairs)
    features = measure(
        views,
        captions=captions,
        caption_image=owner,
        same_space=one_model(joined),
        on_progress=lambda done, total: tell(done, 2 * total),
    )
    embedded = embed_pairs(pair, inputs, pairs)
    views, captions = embedding_views(embedded, inputs, pairs), embedded.captions
    embeddings = measure(
        views,
        captions=captions,
        caption_image=owner,
        on_progress=lambda done, total: tell(total + done, 2 * total),
    )
    embeddings.record["distribution"]["mean_norm"] = embedded.mean_norm
    assert embeddings.text_ranks is not None  # embeddings share a space
    return {
        "chance": embeddings.record["chance"],
        "features": features.record,
        "embeddings": embeddings.record,
        "hypotheses": _hypotheses(embeddings, features),
        "gallery": gallery_record(joined, pairs, embedded, embeddings.text_ranks, seed=gallery_seed),
    }


def _zero_shot_sets(config: EvalConfig, joined: PairedFeatures, cache_dir: Path) -> ZeroShotSets | None:
    if config.zero_shot is None:
        return None
    return open_zero_shot_sets(
        cache_dir,
        config.zero_shot,
        image=joined.image,
        text=joined.text,
        image_encoder=config.zero_shot_image_encoder,
        text_encoder=config.zero_shot_text_encoder,
    )


def _probe_sets(config: EvalConfig, joined: PairedFeatures, cache_dir: Path) -> ProbeSets | None:
    if config.probe is None:
        return None
    sets = open_probe_sets(
        cache_dir,
        config.probe,
        image=joined.image,
        reference=joined.reference if config.probe_with_reference else None,
        image_encoder=config.probe_image_encoder,
        reference_encoder=config.probe_reference,
    )
    if "knn" in config.probe_heads and config.probe_k > sets.n_train:
        raise UsageError(
            f"probe_k = {config.probe_k} neighbours, and {sets.name} has {sets.n_train} train rows",
            hint=f"--probe-k {sets.n_train} is the largest",
        )
    return sets


def _probe(
    config: EvalConfig, trained: FitConfig, sets: ProbeSets, pair: AdapterPair, say: Callable[[str], None]
) -> Record:
    rows = probe_run(
        pair.image,
        sets,
        heads=config.probe_heads,
        k=config.probe_k,
        hidden_dim=config.classifier_hidden_dim or trained.evaluation.classifier_hidden_dim,
        batch_size=config.downstream_batch_size or trained.evaluation.downstream_batch_size,
        seed=config.seed,
        device=resolve_device(config.device),
        on_row=lambda row: say(f"probing {row.replace('_', ' ')} on {sets.name}"),
    )
    return {"name": sets.name, "rows": rows, "relative": relative(rows), "notes": list(sets.notes)}


def _hypotheses(embeddings: Summary, features: Summary) -> dict[str, Any] | None:
    """Both baselines: the adapters' embeddings and the raw frozen features."""
    judged = {name: margins(embeddings, below) for name, below in
              {"embeddings": embeddings, "features": features}.items()}  # fmt: skip
    records = {
        name: {metric: both.to_record() for metric, both in by_metric.items()}
        for name, by_metric in judged.items()
        if by_metric is not None
    }
    return records or None
