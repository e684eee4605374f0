"""Adapters as scikit-learn has them: its own checks of an estimator, and what a head of one width adds."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from align_cache.adapters.pair import Adapter, build_adapter
from align_cache.errors import RunError, ShapeError, UsageError
from align_cache.results import Run
from align_cache.use.model import AlignedModel
from align_cache.use.transformer import AdapterTransformer
from tests.unit.aligned import extract_scenes, fit_scenes, sets_of


class AnyWidth(AdapterTransformer):
    """The same, of a head that is made to the width of whatever a check fits on."""

    def _open(self, dim: int) -> tuple[Adapter, int]:
        torch.manual_seed(0)
        return build_adapter("linear", dim, 3).eval(), 3


NOT_ITS_CONTRACT = {
    "check_estimators_dtypes": "some of its rows are zero: what has no direction is refused, not embedded",
}


# A head has the width of its features, and every check has its own: the checks hold of a head to each width.
@parametrize_with_checks([AnyWidth(device="cpu")], expected_failed_checks=lambda _: NOT_ITS_CONTRACT)
def test_the_checks_of_scikit_learn_hold(estimator: AnyWidth, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache_dir = tmp_path_factory.mktemp("scenes")
    extract_scenes(cache_dir)
    return cache_dir


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    return fit_scenes(home, "small-text")


@pytest.mark.parametrize("modality", ["image", "text"])
def test_rows_are_embedded_as_the_model_embeds_them(
    home: Path, run: Run, tmp_path: Path, modality: Any
) -> None:
    model = AlignedModel.from_run(run, cache_dir=home, device="cpu")
    model.save_pretrained(tmp_path)
    features = sets_of(home, run)[modality == "text"].take(np.arange(30))
    embedded = model.embed_image_features if modality == "image" else model.embed_text_features
    rows = features.astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for name in (run.folder, run.id, tmp_path):
        transformer = AdapterTransformer(name, modality=modality, cache_dir=home, device="cpu")
        found = transformer.fit_transform(5 * rows)
        np.testing.assert_allclose(found, embedded(unit), atol=1e-6)
    assert list(transformer.get_feature_names_out())[:2] == ["adaptertransformer0", "adaptertransformer1"]
    assert (transformer.n_features_in_, transformer.embed_dim_) == (rows.shape[1], model.embed_dim)
    again = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(again.transform(rows), transformer.transform(rows))


@pytest.mark.parametrize("length", [1e-30, 1e25])
def test_rows_of_any_length_are_embedded_alike(home: Path, run: Run, length: float) -> None:
    """The square of such a component is no float32."""
    rows = sets_of(home, run)[0].take(np.arange(6)).astype(np.float32)
    head = AdapterTransformer(run.folder, cache_dir=home, device="cpu").fit(rows)
    np.testing.assert_allclose(head.transform(np.float32(length) * rows), head.transform(rows), atol=1e-5)


def test_it_is_a_step_of_a_pipeline_that_is_cloned(home: Path, run: Run) -> None:
    rows = sets_of(home, run)[0].take(np.arange(40)).astype(np.float32)
    labels = (rows[:, 0] > np.median(rows[:, 0])).astype(int)
    head = AdapterTransformer(run.folder, cache_dir=home, device="cpu")
    pipeline = make_pipeline(head, LogisticRegression(C=100.0))
    assert clone(pipeline).fit(rows, labels).score(rows, labels) > 0.5


def test_what_no_head_embeds_is_refused(home: Path, run: Run) -> None:
    rows = sets_of(home, run)[0].take(np.arange(5)).astype(np.float32)
    of_run = AdapterTransformer(run.folder, cache_dir=home, device="cpu")
    with pytest.raises(ShapeError, match=r"X has 383 columns, .* small-cnn, which have 384"):
        of_run.fit(rows[:, 1:])
    fitted = of_run.fit(rows)
    with pytest.raises(ValueError, match="features"):
        fitted.transform(rows[:, 1:])
    rows[3] = 0
    with pytest.raises(ShapeError, match="row 3 is zero"):
        fitted.transform(rows)
    with pytest.raises(UsageError, match="modality = 'sound'"):
        AdapterTransformer(run.folder, modality="sound", cache_dir=home).fit(rows)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="no run is called"):
        AdapterTransformer("absent", cache_dir=home).fit(rows)
    tower = fit_scenes(home, "bow")
    with pytest.raises(UsageError, match="reads token ids"):
        AdapterTransformer(tower.folder, modality="text", cache_dir=home).fit(np.ones((2, 64)))
