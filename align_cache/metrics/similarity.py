"""How alike images are to their own captions, and to those of others: cosines, without all n x n of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from align_cache.errors import ShapeError
from align_cache.metrics.arrays import Array, as_pair, exact


@dataclass(frozen=True, slots=True)
class PairSimilarity:
    """Mean cosines of the n matched and of the n (n − 1) unmatched pairs, each in [−1, 1]."""

    matched: float
    unmatched: float

    def to_record(self) -> dict[str, float]:
        """Return both by name, as JSON can hold it."""
        return asdict(self)


@exact
def pair_similarity(image_embeddings: Array, text_embeddings: Array) -> PairSimilarity:
    """Mean cosine of an image with its own text, and with the texts of all other images.

    Parameters
    ----------
    image_embeddings, text_embeddings : float array, shape (n, dim)
        Unit-norm rows of one space; row i of both is the same pair.

    Returns
    -------
    PairSimilarity
        ``matched`` = mean_i x_i · y_i; ``unmatched`` = mean_{i≠j} x_i · y_j. Where pairs are not told apart
        both are equal.

    Raises
    ------
    ShapeError, NonFiniteError

    Cost O(n dim): the n² cosines have the sum n² x̄ · ȳ, and the matched ones are taken off it.
    """
    images, texts = as_pair(
        image_embeddings, text_embeddings, names=("image_embeddings", "text_embeddings"), min_rows=2
    )
    if images.dim != texts.dim:
        raise ShapeError(f"image_embeddings have {images.dim} dimensions and text_embeddings {texts.dim}")
    n = images.n
    of_pairs = sum(
        float((images.block(start, stop) * texts.block(start, stop)).sum(dim=1).cpu().double().sum())
        for start, stop in images.spans()
    )
    of_all = n * n * float(images.mean() @ texts.mean())
    return PairSimilarity(matched=of_pairs / n, unmatched=(of_all - of_pairs) / (n * (n - 1)))
