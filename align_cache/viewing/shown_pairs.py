"""The pairs that are shown: some images of a split with their first captions, as a run embeds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from align_cache.errors import UsageError
from align_cache.use.nearest import ExactIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from align_cache.results import Run
    from align_cache.use.model import AlignedModel

    Matrix: TypeAlias = NDArray[np.float32]

Modality: TypeAlias = Literal["image", "text"]


@dataclass(frozen=True, slots=True, eq=False)
class ShownPairs:
    """n pairs of a split; row i of everything is one image and its first caption."""

    dataset: str
    split: str
    n_split: int
    """Images of the whole split."""
    image_ids: list[str]
    captions: list[str]
    """Their words; the captions' ids where the words are not stored."""
    image: Matrix
    """(n, D) float32, unit-norm."""
    text: Matrix
    """(n, D) float32, unit-norm."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows_of(self, modality: Modality) -> Matrix:
        """Return the embeddings of the images or of the captions."""
        return self.image if modality == "image" else self.text

    def nearest(
        self, query: Matrix, modality: Modality, *, k: int, leave_out: int | None = None
    ) -> list[tuple[int, float]]:
        """Rank all images, or all captions, by cosine; of equals the earlier row first.

        Parameters
        ----------
        query : float32 array, shape (D,)
            Unit-norm.
        modality : {"image", "text"}
            What is ranked.
        k : int
            How many to return; all where there are fewer.
        leave_out : int, optional
            A row that is not to be found: the query itself.

        Returns
        -------
        list of (row, cosine), best first
        """
        found = ExactIndex(lambda: [self.rows_of(modality)]).nearest(query[None], k=k + 1)
        ranked = zip(found.rows[0].tolist(), found.similarity[0].tolist(), strict=True)
        return [(row, cosine) for row, cosine in ranked if row != leave_out][:k]


def embed_shown(
    model: AlignedModel, run: Run, *, cache_dir: Path, split: str | None, limit: int
) -> ShownPairs:
    """Embed at most ``limit`` images of a split with their first captions; the same ones each time.

    Raises
    ------
    AlignCacheError
        If the features are not in the cache, are damaged, or have no such split.
    """
    import numpy as np

    from align_cache.judging.run_features import choose_split, open_run_features
    from align_cache.pairing.embedding import embed_pairs, open_inputs

    joined = open_run_features(run.info(), model.config, cache_dir)
    name, every = choose_split(joined, model.config, split)
    drawn = np.sort(np.random.default_rng(0).permutation(every.n_images)[:limit])
    if len(drawn) < 3:
        raise UsageError(f"{every.n_images} images in split {name}: a map needs 3")
    pairs = every.subset(drawn).with_first_captions()
    embedded = embed_pairs(model.pair, open_inputs(joined, pairs, device=model.device), pairs)
    ids = [joined.text.words("sample_id", row) or "" for row in pairs.caption_rows]
    words = [joined.text.words("text", row) for row in pairs.caption_rows]
    return ShownPairs(
        dataset=joined.image.dataset,
        split=name,
        n_split=every.n_images,
        image_ids=pairs.sample_ids.tolist(),
        captions=[word or caption_id for word, caption_id in zip(words, ids, strict=True)],
        image=embedded.image.cpu().numpy(),
        text=embedded.captions.cpu().numpy(),
    )
