"""The gallery that an evaluation records: ids, words and ranks belong together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from align_cache.judging.gallery import IMAGES, QUERIES, gallery_record
from align_cache.metrics.retrieval import retrieval
from align_cache.pairing.embedding import Embedded
from align_cache.pairing.pairs import PairedFeatures, join
from align_cache.results import Record
from tests.unit.stored import paired_sets, unit_rows


@pytest.fixture
def joined(cache_dir: Path) -> PairedFeatures:
    return join(*paired_sets(cache_dir, n=30, captions=2))


def drawn(joined: PairedFeatures, *, seed: int = 0) -> tuple[Record, Embedded]:
    generator = np.random.default_rng(0)
    image, noise = (
        unit_rows(generator, joined.pairs.n_images, 8),
        unit_rows(generator, joined.pairs.n_captions, 8),
    )
    captions = image[joined.pairs.caption_image] + noise
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    embedded = Embedded(torch.from_numpy(image), torch.from_numpy(captions), {})
    ranks = retrieval(embedded.image, embedded.captions, joined.pairs.caption_image).text_to_image.ranks
    return gallery_record(joined, joined.pairs, embedded, ranks, seed=seed), embedded


def test_a_query_names_its_caption_its_image_and_what_was_found(joined: PairedFeatures) -> None:
    record, embedded = drawn(joined)
    assert record["hits"] + record["near"] + record["misses"] == record["n_queries"] == 60
    assert len(record["queries"]) == QUERIES
    ids = joined.pairs.sample_ids.tolist()
    rows = joined.text.sample_ids[joined.pairs.caption_rows].tolist()
    for query in record["queries"]:
        own, shown = query["image"]["image_id"], [image["image_id"] for image in query["images"]]
        assert query["caption_id"].split("#")[0] == own
        assert len(set(shown)) == IMAGES
        assert (own in shown) == (query["rank"] <= IMAGES)
        if own in shown:
            assert shown.index(own) + 1 == query["rank"]
        text = embedded.captions[rows.index(query["caption_id"])]
        for image in (query["image"], *query["images"]):
            expected = float(text @ embedded.image[ids.index(image["image_id"])])
            assert image["similarity"] == pytest.approx(expected, abs=1e-6)


def test_captions_imported_without_words_are_none(joined: PairedFeatures) -> None:
    record, _ = drawn(joined)
    assert {query["caption"] for query in record["queries"]} == {None}
    assert {image["caption"] for query in record["queries"] for image in query["images"]} == {None}


def test_another_seed_draws_other_queries(joined: PairedFeatures) -> None:
    first, second = (drawn(joined, seed=seed)[0]["queries"] for seed in (0, 1))
    assert [query["caption_id"] for query in first] != [query["caption_id"] for query in second]
