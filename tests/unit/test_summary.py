"""The record of one set of pairs: what is measured, what is absent, and the margins over both baselines."""

import numpy as np
import pytest
import torch
from torch import Tensor

from align_cache.adapters import fuse, unit
from align_cache.metrics.alignment import cka, mutual_knn
from align_cache.metrics.hypothesis import hypotheses
from align_cache.metrics.summary import PAIRS, concatenate, margins, summarise


def views(n: int = 40, *, text_dim: int = 7, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(n, 5, generator=generator)

    def seen(dim: int, noise: float) -> Tensor:
        rows = latent @ torch.randn(5, dim, generator=generator)
        return unit(rows + noise * torch.randn(n, dim, generator=generator))

    image, text, reference = seen(7, 0.5), seen(text_dim, 1.0), seen(7, 0.3)
    aligned = fuse(image, text) if text_dim == 7 else concatenate(image, text)
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


@pytest.mark.parametrize("jackknife", [False, True])
def test_margins_over_features_pair_the_aligned_embedding_with_their_image_and_text(jackknife: bool) -> None:
    after, before = views(), views(seed=1)
    before["reference"] = after["reference"]
    summaries = [
        summarise(rows, captions=rows["text"], caption_image=np.arange(40), k=5, jackknife=jackknife)
        for rows in (after, before)
    ]
    judged = margins(*summaries)
    assert judged is not None
    aligned = mutual_knn(after["aligned"], after["reference"], k=5)
    image, text = (mutual_knn(before[name], after["reference"], k=5) for name in ("image", "text"))
    expected = hypotheses(aligned, image, text)
    assert judged["mutual_knn"].h1.margin == pytest.approx(expected.h1.margin)
    assert judged["mutual_knn"].h2.margin == pytest.approx(expected.h2.margin)
    assert judged["mutual_knn"].h1.interval is not None
    assert (judged["cka"].h1.interval is not None) == jackknife


def test_too_few_items_for_a_jackknife_leave_the_margin_without_an_interval() -> None:
    rows = views(n=4)
    summary = summarise(rows, captions=rows["text"], caption_image=np.arange(4), k=2, jackknife=True)
    judged = margins(summary, summary)
    assert judged is not None
    assert judged["cka"].h1.interval is None
