"""Stage 3 of a study: what the best checkpoint of a run retrieves among the images of a split."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_cache.adapters.run_adapters import load_pair
from align_cache.judging.run_features import choose_split, open_run_features
from align_cache.metrics.retrieval import Direction, Retrieval, retrieval
from align_cache.pairing.embedding import embed_pairs, open_inputs
from align_cache.pairing.pairs import Pairs, Rows
from align_cache.results import Run
from align_cache.runtime import resolve_device
from align_cache.settings import fit_config
from align_cache.studies.records import RECALLS, Judgement, Scores


def judge_retrieval(run: Run, split: str, *, cache_dir: Path) -> tuple[Judgement, Scores]:
    """Measure the retrieval of a run's best checkpoint, image by image.

    Parameters
    ----------
    run : Run
        Finished.
    split : str
    cache_dir : Path
        Holds the feature sets that the run was trained on.

    Returns
    -------
    Judgement, and a float64 array, shape (n_images, 6): what each image contributes to each recall, in the
    order of the images' ids. The means over images are the recalls.

    Raises
    ------
    AlignCacheError
    """
    info, trained = run.info(), fit_config(file=run.folder / "config.toml")
    joined = open_run_features(info, trained, cache_dir)
    name, unordered = choose_split(joined, trained, split)
    pairs = unordered.subset(np.argsort(unordered.sample_ids))  # whatever order a feature set has them in
    pair, epoch = load_pair(run, "best")
    device = resolve_device(trained.device)
    embedded = embed_pairs(pair.to(device), open_inputs(joined, pairs, device=device), pairs)
    found = retrieval(embedded.image, embedded.captions, pairs.caption_image)
    scores = image_scores(found, pairs.caption_image)
    judgement = Judgement(
        run=run.id,
        split=name,
        epoch=epoch,
        n_images=pairs.n_images,
        n_captions=pairs.n_captions,
        images=_digest(pairs),
        untrained=tuple(info["untrained"]),
        recalls=dict(zip(RECALLS, _recalls(found), strict=True)),
    )
    return judgement, scores


def image_scores(found: Retrieval, caption_image: Rows) -> Scores:
    """Return what each image contributes to each recall.

    Parameters
    ----------
    found : Retrieval
        Of images that all have captions.
    caption_image : int array, shape (m,)
        Row of the image that each caption describes.

    Returns
    -------
    float64 array, shape (n, 6). Image to text: whether the image finds a caption of its own. Text to image:
    the recall, and what the image's captions find beyond or below it over the mean number of captions. The
    means are the recalls, and the deviations from them the terms of their error when images are drawn anew.
    """
    captions = np.bincount(caption_image)
    columns: list[NDArray[Any]] = [found.image_to_text.ranks <= k for k in found.image_to_text.recall]
    for k, recall in found.text_to_image.recall.items():
        hits = np.bincount(caption_image, found.text_to_image.ranks <= k)
        columns.append(recall + (hits - recall * captions) / captions.mean())
    return np.stack(columns, axis=1).astype(np.float64)


def _recalls(found: Retrieval) -> list[float]:
    ways: tuple[Direction, ...] = (found.image_to_text, found.text_to_image)
    return [recall for way in ways for recall in way.recall.values()]


def _digest(pairs: Pairs) -> str:
    return hashlib.sha256("\n".join(pairs.sample_ids.tolist()).encode()).hexdigest()[:16]
