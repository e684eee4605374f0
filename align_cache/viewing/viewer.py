"""What the page asks, one method a question. Everything it returns can be written as JSON."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from align_cache.errors import UsageError
from align_cache.results import Record, Run, list_runs
from align_cache.runtime import DeviceName
from align_cache.viewing.kept import Kept
from align_cache.viewing.layouts import LayoutName, Placed, place
from align_cache.viewing.matrices import matrices
from align_cache.viewing.runs import curves, runs_table
from align_cache.viewing.shown_pairs import Modality, ShownPairs, embed_shown
from align_cache.viewing.thumbnails import Thumbnail, Thumbnails

if TYPE_CHECKING:
    from align_cache.use.model import AlignedModel

_DIGITS = 5
"""Of a coordinate: a pixel at a thousandfold zoom."""


class Viewer:
    """The runs of a cache, what they embed and the pictures of it; thread-safe.

    Parameters are those of :func:`~align_cache.viewing.open_view`.
    """

    def __init__(
        self,
        first: Run,
        *,
        cache_dir: Path,
        split: str | None,
        pairs: int,
        dataset: str | None,
        data_dir: Path | None,
        device: DeviceName,
    ) -> None:
        if pairs < 3:
            raise UsageError(f"pairs = {pairs}: expected at least 3")
        self.first = first
        self._cache_dir, self._split, self._pairs, self._device = cache_dir, split, pairs, device
        self._by_id: dict[str, Run] = {}
        self._encoding = Lock()
        """A text encoder is loaded by the first search, and by that alone."""
        self._model = Kept(self._load_model)
        self._shown = Kept(self._embed_shown)
        self._plane: dict[LayoutName, Kept[Placed]] = {
            "pca": Kept(lambda run: place(self._shown(run), "pca")),
            "tsne": Kept(lambda run: place(self._shown(run), "tsne")),
        }
        self._thumbnails = Kept(
            partial(Thumbnails.of, cache_dir=cache_dir, dataset=dataset, data_dir=data_dir),
            of_checkpoint=False,
        )

    def run(self, name: str) -> Run | None:
        """Return a run of the cache by its whole id; None where there is none.

        Every picture asks: a cache of thousands of runs is looked through again for a new name alone.
        """
        if name not in self._by_id:
            self._by_id = {run.id: run for run in self._runs()}
        return self._by_id.get(name)

    def runs(self) -> Record:
        """Return the table of runs, and which is shown first."""
        return {**runs_table(self._runs()), "first": self.first.id}

    def curves(self, run: Run) -> Record:
        """Return what a run logged at each epoch."""
        return curves(run)

    def matrices(self, run: Run) -> Record:
        """Return the alignment of a run."""
        return matrices(run)

    def map(self, run: Run, layout: LayoutName) -> Record:
        """Return the points of the map with what is known of each."""
        shown, info = self._shown(run), run.info()
        placed, pictures = self._plane[layout](run), self._thumbnails(run)
        own = (shown.image[placed.rows] * shown.text[placed.rows]).sum(axis=1)
        return {
            "dataset": shown.dataset,
            "split": shown.split,
            "epoch": info.get("best_epoch"),
            "n": len(placed.rows),
            "n_split": shown.n_split,
            "untrained": info.get("untrained") or [],
            "note": placed.note,
            "pictures": pictures.available,
            "pictures_note": pictures.note,
            "rows": placed.rows.tolist(),
            "ids": [shown.image_ids[row] for row in placed.rows],
            "captions": [shown.captions[row] for row in placed.rows],
            "cosines": own.round(3).tolist(),
            "image": placed.image.round(_DIGITS).ravel().tolist(),
            "text": placed.text.round(_DIGITS).ravel().tolist(),
        }

    def similar(self, run: Run, row: int, modality: Modality, k: int) -> Record | None:
        """Return the images and captions nearest to one that is shown; None for a row that there is not."""
        shown = self._shown(run)
        if row >= len(shown):
            return None
        query = shown.rows_of(modality)[row]

        def found(wanted: Modality) -> list[Record]:
            own = row if wanted == modality else None
            return _hits(shown, shown.nearest(query, wanted, k=k, leave_out=own))

        return {
            "asked": {"image_id": shown.image_ids[row], "caption": shown.captions[row]},
            "image": found("image"),
            "text": found("text"),
            **self._among(run),
        }

    def searchable(self, run: Run) -> Record:
        """Say among what :meth:`search` would search.

        Raises
        ------
        EncoderError
            If the run's captions were imported as features: nothing knows how to encode a sentence.
        """
        self._model(run).text_encoder.required_request()
        return self._among(run)

    def search(self, run: Run, words: str, k: int) -> Record:
        """Return the images nearest to a sentence.

        Raises
        ------
        EncoderError
            If the run's text encoder cannot be had here.
        """
        model, shown = self._model(run), self._shown(run)
        with self._encoding:
            query = model.encode_text([words])[0]
        found = shown.nearest(query, "image", k=k)
        return {
            "image": _hits(shown, found),
            "notes": model.text_encoder.notes(model.device),
            **self._among(run),
        }

    def thumbnail(self, run: Run, sample_id: str) -> Thumbnail | None:
        """Return a small picture of an image of the run's dataset, None where it cannot be had."""
        return self._thumbnails(run).get(sample_id)

    def _runs(self) -> list[Run]:
        runs = list_runs(self._cache_dir)
        return runs if self.first in runs else [*runs, self.first]

    def _load_model(self, run: Run) -> AlignedModel:
        from align_cache.use.model import AlignedModel

        return AlignedModel.from_run(run, cache_dir=self._cache_dir, device=self._device)

    def _embed_shown(self, run: Run) -> ShownPairs:
        model = self._model(run)
        return embed_shown(model, run, cache_dir=self._cache_dir, split=self._split, limit=self._pairs)

    def _among(self, run: Run) -> Record:
        """Say what was searched, and whether there are pictures of it."""
        shown, pictures = self._shown(run), self._thumbnails(run)
        return {
            "n": len(shown),
            "n_split": shown.n_split,
            "split": shown.split,
            "pictures": pictures.available,
            "pictures_note": pictures.note,
        }


def _hits(shown: ShownPairs, found: list[tuple[int, float]]) -> list[Record]:
    return [
        {
            "row": row,
            "image_id": shown.image_ids[row],
            "caption": shown.captions[row],
            "cosine": round(cosine, 4),
        }
        for row, cosine in found
    ]
