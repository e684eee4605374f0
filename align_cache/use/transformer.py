"""Features to embeddings as scikit-learn does it: the head of one modality as a transformer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from align_cache.errors import ShapeError, UsageError
from align_cache.pairing.embedding import BLOCK_ROWS, embed
from align_cache.runtime import DeviceName
from align_cache.store.columns import unit_rows

if TYPE_CHECKING:
    from align_cache.adapters.pair import Adapter
    from align_cache.use.embedder import Embedder


class AdapterTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc] # untyped
    """The trained head of one modality, as a step of a scikit-learn pipeline: features to embeddings.

    A head is trained on pairs of two modalities, which ``fit(X, y)`` of one matrix cannot hold: training is
    :func:`align_cache.fit`. ``fit`` here opens the model and refuses an ``X`` of another width than the
    features that the head was trained on. Nothing is learned of ``X``: a transformer that is cloned or
    cross-validated embeds alike, and no row leaks into another's embedding.

    Parameters
    ----------
    model : str or Path
        A folder that :meth:`AlignedModel.save_pretrained` left, or a run: ``latest``, an id or its head, its
        folder.
    modality : {"image", "text"}
        Whose features ``X`` holds.
    cache_dir : str or Path
        Where a run and its feature sets are.
    device : {"auto", "cpu", "cuda", "mps"}
        Where rows are embedded; it goes with the fitted transformer when that is pickled.

    Attributes
    ----------
    n_features_in_ : int
        Components of a feature.
    feature_names_in_ : array of str
        Names of the columns, where ``X`` had some.
    embed_dim_ : int
        Components of an embedding.

    Examples
    --------
    >>> from align_cache import AdapterTransformer, open_feature_set
    >>> features = open_feature_set("shapes", "small-cnn").array()
    >>> AdapterTransformer("latest", modality="image").fit(features).transform(features).shape
    (60, 768)
    """

    def __init__(
        self,
        model: str | Path = "latest",
        *,
        modality: Literal["image", "text"] = "image",
        cache_dir: str | Path = "cache",
        device: DeviceName = "auto",
    ) -> None:
        self.model = model
        self.modality = modality
        self.cache_dir = cache_dir
        self.device = device

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Open the model, and make sure that it embeds rows like these.

        Parameters
        ----------
        X : float array, shape (n, dim)
            Features of the modality's encoder.
        y : ignored

        Raises
        ------
        UsageError
            For a modality that is none, or a text side that reads token ids, which are no features.
        ShapeError
            If the head was trained on features of another width.
        RunError, CacheError, CorruptError
            As :meth:`AlignedModel.from_run` and :meth:`AlignedModel.from_pretrained` raise them.
        """
        rows = validate_data(self, X, dtype=np.float32)
        self._head, self.embed_dim_ = self._open(rows.shape[1])
        self._n_features_out = self.embed_dim_
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Embed features.

        Parameters
        ----------
        X : float array, shape (n, dim)
            Rows of any length but zero: they are scaled to unit length, as those of a cache are.

        Returns
        -------
        float32 array, shape (n, embed_dim), unit-norm rows.

        Raises
        ------
        ValueError
            If X holds NaN, infinity or a row of zeros, or is of another width than in ``fit``.
        """
        check_is_fitted(self)
        rows, good = unit_rows(validate_data(self, X, dtype=np.float32, reset=False))
        if not good.all():
            raise ShapeError(f"row {int(good.argmin())} is zero and has no direction")
        device = next(self._head.parameters()).device
        with torch.inference_mode():
            blocks = torch.split(torch.from_numpy(rows), BLOCK_ROWS)
            embeddings = torch.cat([embed(self._head, block.to(device)).cpu() for block in blocks])
        return embeddings.numpy()

    def _open(self, dim: int) -> tuple[Adapter, int]:
        """Return the head, for rows of ``dim`` components, and how many its embeddings have."""
        if self.modality not in ("image", "text"):
            raise UsageError(f"modality = {self.modality!r}, expected image or text")
        model = self._opened()
        known = model.image_encoder if self.modality == "image" else model.text_encoder
        if known.holds_tokens:
            raise UsageError(
                f"the text side of {self.model} reads token ids, and a transformer embeds features",
                hint="AlignedModel.embed_text_features embeds token ids",
            )
        if dim != known.dim:
            raise ShapeError(
                f"X has {dim} columns, and the {self.modality} head of {self.model} embeds features of "
                f"{known.name}, which have {known.dim}"
            )
        return (model.pair.image if self.modality == "image" else model.pair.text), model.embed_dim

    def _opened(self) -> Embedder:
        from align_cache.use.model import AlignedModel

        if (Path(self.model) / "config.json").is_file():
            return AlignedModel.from_pretrained(self.model, device=self.device)
        return AlignedModel.from_run(self.model, cache_dir=self.cache_dir, device=self.device)

    def __sklearn_tags__(self) -> Any:
        """Say what it takes and gives: dense floats to float32, without a target."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.requires_fit = True
        return tags
