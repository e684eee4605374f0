"""The gallery of an evaluation: a few captions, the images each finds first, and the rank of its own."""

import numpy as np
import torch
from numpy.typing import NDArray

from align_cache.metrics.examples import best_candidates, draw_queries
from align_cache.pairing.embedding import Embedded
from align_cache.pairing.pairs import PairedFeatures, Pairs
from align_cache.results import Record

QUERIES, IMAGES = 8, 5


def gallery_record(
    joined: PairedFeatures, pairs: Pairs, embedded: Embedded, ranks: NDArray[np.int64], *, seed: int
) -> Record:
    """Draw queries from the hits, the near ones and the misses, and record what each finds.

    Parameters
    ----------
    joined : PairedFeatures
        Where the captions' words are, if they are stored.
    pairs : Pairs
        What was judged.
    embedded : Embedded
        Its embeddings.
    ranks : int array, shape (m captions,)
        Rank of each caption's image, text to image.
    seed : int
        Of the draw.

    Returns
    -------
    dict
        ``hits``, ``near`` and ``misses`` count all captions; ``queries`` holds the drawn ones, best rank
        first, each with its ``images``. Words are None where the captions were imported without them.
    """
    drawn = draw_queries(ranks, n=QUERIES, seed=seed)
    rows = torch.from_numpy(drawn.queries).to(embedded.captions.device)
    owner = pairs.caption_image[drawn.queries]
    found = best_candidates(embedded.captions[rows], embedded.image, owner, k=IMAGES)
    queries = [
        {
            "caption_id": joined.text.words("sample_id", pairs.caption_rows[query]),
            "caption": joined.text.words("text", pairs.caption_rows[query]),
            "rank": int(ranks[query]),
            "image": _image(joined, pairs, image, similarity),
            "images": [_image(joined, pairs, *each) for each in zip(*best, strict=True)],
        }
        for query, image, similarity, *best in zip(
            drawn.queries, owner, found.right_similarity, found.candidates, found.similarity, strict=True
        )
    ]
    return {
        "direction": "text_to_image",
        "seed": seed,
        "n_queries": len(ranks),
        "n_candidates": pairs.n_images,
        "hits": drawn.hits,
        "near": drawn.near,
        "misses": drawn.misses,
        "queries": queries,
    }


def _image(joined: PairedFeatures, pairs: Pairs, image: int, similarity: float) -> Record:
    """Return an image's id, its similarity to the query and its first caption."""
    first_caption = pairs.caption_rows[pairs.caption_starts[image]]
    return {
        "image_id": joined.image.words("sample_id", pairs.image_rows[image]),
        "similarity": float(similarity),
        "caption": joined.text.words("text", first_caption),
    }
