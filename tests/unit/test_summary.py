"""The record of one set of pairs: what is measured, what is absent, and the margins over both baselines."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from align_cache.adapters.pair import fuse, unit
from align_cache.metrics import paired_views
from align_cache.metrics.alignment import ALIGNMENT_METRICS, cka, mutual_knn, nearest_neighbours
from align_cache.metrics.hypothesis import hypotheses
from align_cache.metrics.interval import estimate, jackknife_terms
from align_cache.metrics.resampling import SPLITS, groups_terms, half_splits, halves_terms, without_groups
from align_cache.metrics.significance import permutation_null
from align_cache.metrics.similarity import pair_similarity
from align_cache.metrics.summary import PAIRS, concatenate, margins, summarise


def views(n: int = 40, *, dim: int = 7, text_dim: int = 7, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(n, 5, generator=generator)

    def seen(width: int, noise: float) -> Tensor:
        rows = latent @ torch.randn(5, width, generator=generator)
        return unit(rows + noise * torch.randn(n, width, generator=generator))

    image, text, reference = seen(dim, 0.5), seen(text_dim, 1.0), seen(dim, 0.3)
    aligned = fuse(image, text) if text_dim == dim else concatenate(image, text)
    return {"image": image, "text": text, "aligned": aligned, "reference": reference}


def test_concatenation_has_the_mean_of_both_kernels() -> None:
    rows = views(text_dim=4)
    both = concatenate(rows["image"], rows["text"])
    mean = (rows["image"] @ rows["image"].T + rows["text"] @ rows["text"].T) / 2
    assert torch.allclose(both @ both.T, mean, atol=1e-6)
    assert torch.allclose(both.norm(dim=1), torch.ones(40), atol=1e-6)


def test_the_four_pairs_are_measured_by_both_metrics() -> None:
    rows = views()
    record = summarise(rows, captions=rows["text"], caption_image=np.arange(40), k=5).record
    assert record["similarity"] == pair_similarity(rows["image"], rows["text"]).to_record()
    assert record["distribution"]["modality_gap"] > 0
    assert record["distribution"]["variance_difference"] > 0
    for name, (a, b) in PAIRS.items():
        assert record["alignment"]["mutual_knn"][name] == pytest.approx(mutual_knn(rows[a], rows[b], k=5))
        assert record["alignment"]["cka"][name] == pytest.approx(cka(rows[a], rows[b]))
    assert record["chance"] == {"mutual_knn": 5 / 39, "cka": 0.0}
    assert record["retrieval"]["text_to_image"]["n_queries"] == 40


def test_what_cannot_be_measured_is_absent_and_the_rest_is_there() -> None:
    rows = views()  # of equal width, which does not make them one space
    del rows["reference"]
    summary = summarise(rows, captions=rows["text"], caption_image=np.arange(40), k=5, same_space=False)
    assert summary.record["retrieval"] is None
    assert summary.record["similarity"] is None
    assert summary.record["distribution"]["modality_gap"] is None
    assert summary.record["distribution"]["variance_difference"] is None
    assert summary.record["alignment"]["cka"].keys() == {"image_text"}
    assert margins(summary, summary) is None


@pytest.mark.parametrize("intervals", [False, True])
def test_margins_over_features_pair_the_aligned_embedding_with_their_image_and_text(intervals: bool) -> None:
    after, before = views(), views(seed=1)
    before["reference"] = after["reference"]
    summaries = [
        summarise(rows, captions=rows["text"], caption_image=np.arange(40), k=2, intervals=intervals)
        for rows in (after, before)
    ]
    judged = margins(*summaries)
    assert judged is not None
    aligned = mutual_knn(after["aligned"], after["reference"], k=2)
    image, text = (mutual_knn(before[name], after["reference"], k=2) for name in ("image", "text"))
    expected = hypotheses(aligned, image, text)
    assert judged["mutual_knn"].h1.margin == pytest.approx(expected.h1.margin)
    assert judged["mutual_knn"].h2.margin == pytest.approx(expected.h2.margin)
    assert {metric: both.h1.interval is not None for metric, both in judged.items()} == {
        "mutual_knn": intervals,
        "cka": intervals,
    }


@pytest.mark.parametrize(("n", "known"), [(4, set()), (39, {"cka"}), (40, {"cka", "mutual_knn"})])
def test_too_few_items_for_an_error_leave_values_and_margins_without_an_interval(
    n: int, known: set[str]
) -> None:
    rows = views(n=n)
    summary = summarise(rows, captions=rows["text"], caption_image=np.arange(n), k=2, intervals=True)
    assert summary.record["intervals"].keys() == known
    judged = margins(summary, summary)
    assert judged is not None
    assert {metric for metric, both in judged.items() if both.h1.interval} == known


def judged(rows: dict[str, Tensor], **options: object) -> dict[str, Any]:
    record: dict[str, Any] = summarise(
        rows, captions=rows["text"], caption_image=np.arange(len(rows["text"])), k=5, **options
    ).record
    return record


def test_every_metric_can_be_asked_for_and_each_view_is_searched_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[int] = []

    def counted(rows: Tensor, *, k: int) -> object:
        searched.append(id(rows))
        return nearest_neighbours(rows, k=k)

    monkeypatch.setattr(paired_views, "nearest_neighbours", counted)
    rows = views(dim=12, text_dim=11)  # svcca asks for ten directions
    record = judged(rows, metrics=tuple(ALIGNMENT_METRICS), same_space=False)
    assert sorted(searched) == sorted(id(part) for part in rows.values())
    for metric, known in ALIGNMENT_METRICS.items():
        extra = {"k": 5} if known.needs_k else {}
        for name, (a, b) in PAIRS.items():
            assert record["alignment"][metric][name] == pytest.approx(
                known.function(rows[a], rows[b], **extra)
            )
    assert record["chance"].keys() == {"mutual_knn", "cka"}


def test_without_a_metric_of_neighbours_none_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(paired_views, "nearest_neighbours")
    assert judged(views(), metrics=("cka",))["alignment"].keys() == {"cka"}


SCORED = ("cka", "cka_rbf", "cycle_knn")
"""Metrics whose error is told by what each item contributes; that of the others by parts of the items."""


@pytest.fixture
def few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six splits instead of fifty: the values are right or wrong with as few."""
    monkeypatch.setattr(paired_views, "half_splits", partial(half_splits, splits=6))


@pytest.mark.usefixtures("few_splits")
def test_every_metric_has_intervals_from_scores_or_from_parts() -> None:
    rows = views(n=203, dim=12, text_dim=11)
    record = judged(rows, metrics=tuple(ALIGNMENT_METRICS), same_space=False, intervals=True)
    assert tuple(record["intervals"]) == tuple(ALIGNMENT_METRICS)
    for metric, bounds in record["intervals"].items():
        known = ALIGNMENT_METRICS[metric]
        extra = {"k": 5} if known.needs_k else {}
        assert (known.scores is not None) == (metric in SCORED)
        a, b = (rows[view] for view in PAIRS["text_reference"])
        if known.scores:
            terms = jackknife_terms(known.scores(a, b, **extra))
        elif known.needs_k:
            splits = half_splits(203, splits=6)
            halves = [[known.function(a[half], b[half], **extra) for half in pair] for pair in splits]
            terms = halves_terms(np.array(halves))
        else:
            terms = groups_terms(np.array([known.function(a[rest], b[rest]) for rest in without_groups(203)]))
        expected = estimate(known.function(a, b, **extra), terms).interval
        assert bounds["text_reference"] == pytest.approx(list(expected), abs=1e-5)


def test_nothing_that_was_not_asked_for_is_in_the_record() -> None:
    assert judged(views()).keys().isdisjoint({"intervals", "null"})


def test_a_progress_bar_hears_of_every_split_and_every_shuffle() -> None:
    heard: list[tuple[int, int]] = []
    rows = views(n=100)
    options = {"intervals": True, "permutations": 3, "on_progress": lambda *step: heard.append(step)}
    judged(rows, **options)  # two metrics, four pairs
    assert heard == [(done, SPLITS + 24) for done in range(1, SPLITS + 25)]


def test_the_null_is_that_of_each_pair_and_survives_json() -> None:
    rows = views()
    record = judged(rows, metrics=("cka", "lcs_knn"), permutations=19, seed=3)
    assert json.loads(json.dumps(record)) == record
    for metric in ("cka", "lcs_knn"):
        assert record["null"][metric].keys() == PAIRS.keys()
        for name, (a, b) in PAIRS.items():
            expected = permutation_null(metric, rows[a], rows[b], k=5, permutations=19, seed=3)
            found = record["null"][metric][name]
            assert found == pytest.approx({key: getattr(expected, key) for key in found})
            assert found.keys() == {"chance", "chance_sd", "threshold", "p", "calibrated"}


@pytest.mark.usefixtures("few_splits")
def test_every_metric_has_both_margins_with_verdicts() -> None:
    rows = views(n=200, dim=12, text_dim=12)
    names = tuple(ALIGNMENT_METRICS)
    summary = summarise(
        rows, captions=rows["text"], caption_image=np.arange(200), k=5, metrics=names, intervals=True
    )
    found = margins(summary, summary)
    assert found is not None
    assert tuple(found) == names
    for metric, both in found.items():
        values = summary.record["alignment"][metric]
        best = max(values["image_reference"], values["text_reference"])
        assert both.h2.margin == pytest.approx(values["aligned_reference"] - best)
        assert both.h1.verdict is not None
        assert both.h2.interval is not None
