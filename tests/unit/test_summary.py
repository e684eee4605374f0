"""The record of one set of pairs: what is measured, what is absent, and the margins over both baselines."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from align_cache.adapters import fuse, unit
from align_cache.metrics import paired_views
from align_cache.metrics.alignment import ALIGNMENT_METRICS, cka, mutual_knn, nearest_neighbours
from align_cache.metrics.hypothesis import hypotheses
from align_cache.metrics.interval import estimate
from align_cache.metrics.significance import permutation_null
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
    assert summary.record["distribution"]["modality_gap"] is None
    assert summary.record["distribution"]["variance_difference"] is None
    assert summary.record["alignment"]["cka"].keys() == {"image_text"}
    assert margins(summary, summary) is None


@pytest.mark.parametrize("intervals", [False, True])
def test_margins_over_features_pair_the_aligned_embedding_with_their_image_and_text(intervals: bool) -> None:
    after, before = views(), views(seed=1)
    before["reference"] = after["reference"]
    summaries = [
        summarise(rows, captions=rows["text"], caption_image=np.arange(40), k=5, intervals=intervals)
        for rows in (after, before)
    ]
    judged = margins(*summaries)
    assert judged is not None
    aligned = mutual_knn(after["aligned"], after["reference"], k=5)
    image, text = (mutual_knn(before[name], after["reference"], k=5) for name in ("image", "text"))
    expected = hypotheses(aligned, image, text)
    assert judged["mutual_knn"].h1.margin == pytest.approx(expected.h1.margin)
    assert judged["mutual_knn"].h2.margin == pytest.approx(expected.h2.margin)
    assert {metric: both.h1.interval is not None for metric, both in judged.items()} == {
        "mutual_knn": intervals,
        "cka": intervals,
    }


def test_too_few_items_for_a_jackknife_leave_the_margin_without_an_interval() -> None:
    rows = views(n=4)
    summary = summarise(rows, captions=rows["text"], caption_image=np.arange(4), k=2, intervals=True)
    judged = margins(summary, summary)
    assert judged is not None
    assert judged["cka"].h1.interval is None


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


def test_values_have_intervals_where_items_have_scores() -> None:
    rows = views()
    record = judged(rows, metrics=("cknna", "cycle_knn", "cka"), intervals=True)
    assert record["intervals"].keys() == {"cycle_knn", "cka"}
    for metric, bounds in record["intervals"].items():
        extra = {"k": 5} if metric == "cycle_knn" else {}
        scores = ALIGNMENT_METRICS[metric].scores
        assert scores is not None
        for name, (a, b) in PAIRS.items():
            value = record["alignment"][metric][name]
            expected = estimate(value, scores(rows[a], rows[b], **extra)).interval
            assert bounds[name] == pytest.approx(list(expected))
    assert "null" not in record
    assert "intervals" not in judged(rows)


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


def test_every_measured_metric_has_both_margins() -> None:
    rows = views()
    names = ("cknna", "edit_distance_knn")
    summary = summarise(
        rows, captions=rows["text"], caption_image=np.arange(40), k=5, metrics=names, intervals=True
    )
    found = margins(summary, summary)
    assert found is not None
    assert tuple(found) == names
    assert found["cknna"].h2.interval is None
    assert found["edit_distance_knn"].h2.interval is not None
    values = summary.record["alignment"]["cknna"]
    best = max(values["image_reference"], values["text_reference"])
    assert found["cknna"].h2.margin == pytest.approx(values["aligned_reference"] - best)
