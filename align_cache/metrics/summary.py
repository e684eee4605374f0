"""All numbers of one set of pairs in one record: what validation logs and what an evaluation reports."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align_cache.metrics.alignment import ALIGNMENT_METRICS
from align_cache.metrics.distribution import effective_rank, modality_gap, uniformity, variance_difference
from align_cache.metrics.hypothesis import Hypotheses, hypotheses
from align_cache.metrics.paired_views import ErrorTerms, PairedViews, intervals_of
from align_cache.metrics.retrieval import retrieval
from align_cache.metrics.similarity import pair_similarity

PAIRS = {
    "image_text": ("image", "text"),
    "image_reference": ("image", "reference"),
    "text_reference": ("text", "reference"),
    "aligned_reference": ("aligned", "reference"),
}
"""The four pairs of representations that alignment is measured on, by name."""


def concatenate(image: Tensor, text: Tensor) -> Tensor:
    """Fuse unit-norm rows of any two widths without training: ``[image; text] / √2``, again unit-norm.

    Its kernel is the mean of the two kernels, which is what an untrained "aligned" can be for features
    that do not share a space.
    """
    return torch.cat([image, text], dim=1) / 2**0.5


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers of one set of views, and the error terms that margins are judged by."""

    record: dict[str, Any]
    """``n``, ``k``, ``alignment``, ``chance``, ``retrieval``, ``similarity``, ``distribution``, and where
    they were asked for ``intervals`` and ``null``; as JSON can hold it."""
    terms: Mapping[str, ErrorTerms]
    """Error terms by metric and pair of views; empty unless intervals were asked for."""
    text_ranks: NDArray[np.int64] | None
    """Rank of each caption's image, text to image, shape (m,); None where they share no space."""


def summarise(
    views: Mapping[str, Tensor],
    *,
    captions: Tensor | None,
    caption_image: NDArray[np.int64],
    k: int,
    metrics: Sequence[str] = ("mutual_knn", "cka"),
    same_space: bool = True,
    intervals: bool = False,
    permutations: int = 0,
    seed: int = 0,
    on_progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Measure alignment, retrieval, cosine similarity and spread.

    Parameters
    ----------
    views : mapping of name to float tensor, shape (n, dim)
        Unit-norm rows of the same n pairs: ``image``, ``text`` (one caption an image), ``aligned`` and, if
        there is one, ``reference``. Widths may differ. Not in one space, there may be no text nor aligned.
    captions : float tensor, shape (m, dim), or None
        Every caption, unit-norm; needed in one space.
    caption_image : int array, shape (m,)
        Row of the image that each caption describes.
    k : int
        Neighbours; k < n.
    metrics : sequence of str
        Names of ``ALIGNMENT_METRICS``, at least one.
    same_space : bool
        Whether image and text are points of one space, as embeddings are. Features of two encoders are
        not, even of equal width: then retrieval, similarity, modality gap and variance difference are None.
    intervals : bool
        Also measure the sampling error under every metric for which there are items enough, so that values
        and margins have intervals.
    permutations : int
        Shuffles of the permutation null of every metric and pair; 0: none.
    seed : int
        Of the shuffles.
    on_progress : callable, optional
        Told how many parts of the items and shuffles are done, and of how many.

    Raises
    ------
    ShapeError, NonFiniteError
    """
    n = len(views["image"])
    pairs = {name: pair for name, pair in PAIRS.items() if set(pair) <= views.keys()}
    compared = PairedViews(views, pairs, metrics=metrics, k=k, errors=intervals)
    values = compared.values()
    steps = compared.parts * intervals + permutations * len(metrics) * len(pairs)
    done, tell = itertools.count(1), on_progress or (lambda done, total: None)

    def on_step() -> None:
        tell(next(done), steps)

    terms = compared.error_terms(on_step=on_step) if intervals else {}
    found = cosines = None
    if same_space:
        assert captions is not None  # embeddings have them
        found = retrieval(views["image"], captions, caption_image)
        cosines = pair_similarity(views["image"], views["text"])
    record: dict[str, Any] = {
        "n": n,
        "k": k,
        "alignment": values,
        "chance": {
            metric: chance(n, k) for metric in metrics if (chance := ALIGNMENT_METRICS[metric].chance)
        },
        "retrieval": found and found.to_record(),
        "similarity": cosines and cosines.to_record(),
        "distribution": _distribution(views, same_space=same_space),
    }
    if intervals:
        record["intervals"] = intervals_of(values, terms)
    if permutations:
        record["null"] = compared.null(permutations=permutations, seed=seed, on_step=on_step)
    return Summary(record, terms, None if found is None else found.text_to_image.ranks)


def margins(embeddings: Summary, baseline: Summary) -> dict[str, Hypotheses] | None:
    """Judge H1 and H2 by metric: the aligned embedding against a baseline's image and text.

    Parameters
    ----------
    embeddings : Summary
        Holds the aligned embedding.
    baseline : Summary
        Holds image and text: the same embeddings, or the raw features of the same items, if text has any.

    Returns
    -------
    dict of metric to Hypotheses; None without a reference or without the baseline's text. Margins have paired
    intervals under the metrics whose error is known in both.
    """
    judged = {}
    for metric, values in embeddings.record["alignment"].items():
        below = baseline.record["alignment"][metric]
        if "aligned_reference" not in values or "text_reference" not in below:
            return None
        terms = None
        if metric in embeddings.terms and metric in baseline.terms:
            of_baseline = baseline.terms[metric]
            of_aligned = embeddings.terms[metric]["aligned_reference"]
            terms = (of_aligned, of_baseline["image_reference"], of_baseline["text_reference"])
        judged[metric] = hypotheses(
            values["aligned_reference"], below["image_reference"], below["text_reference"], terms=terms
        )
    return judged


def _distribution(views: Mapping[str, Tensor], *, same_space: bool) -> dict[str, Any]:
    reference = views.get("reference")
    comparable = same_space and reference is not None and reference.shape[1] == views["aligned"].shape[1]
    return {
        "variance_difference": variance_difference(views["aligned"], views["reference"])
        if comparable
        else None,
        "effective_rank": {name: effective_rank(rows) for name, rows in views.items()},
        "uniformity": {name: uniformity(rows) for name, rows in views.items()},
        "modality_gap": modality_gap(views["image"], views["text"]) if same_space else None,
    }
