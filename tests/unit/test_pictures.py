"""Pictures of the gallery: read from the very data, kept in the run folder, absent with a reason."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align_cache.errors import SourceError, UsageError
from align_cache.extraction import origin
from align_cache.extraction.external import import_features
from align_cache.extraction.extracting import extract
from align_cache.results import Run
from align_cache.settings import ExtractConfig
from align_cache.sources import open_source
from align_cache.store import FeatureSet
from align_cache.store.provenance import provenance_bytes, read_provenance
from align_cache.use import pictures
from align_cache.use.pictures import collect_pictures
from align_cache.use.small_pictures import SIDE


def a_run(cache_dir: Path, features: FeatureSet, *ids: str) -> Run:
    """A run on some features whose gallery shows the images named."""
    run = Run(cache_dir / "runs" / "mlp-x")
    run.folder.mkdir(parents=True)
    run.update(dataset=features.dataset, image={"encoder": features.encoder, "key8": features.key8})
    shown = [{"image_id": sample_id} for sample_id in ids]
    run.append_result({"kind": "evaluation", "gallery": {"queries": [{"image": shown[0], "images": shown}]}})
    return run


def extracted(cache_dir: Path, **settings: Any) -> FeatureSet:
    config = ExtractConfig(encoders=("small-cnn",), weights={"*": "random"}, device="cpu", **settings)
    (result,) = extract(config, cache_dir=cache_dir)
    return FeatureSet.open(result.folder)


def record_source(features: FeatureSet, source: dict[str, Any]) -> None:
    """Say of a feature set that it came from somewhere else."""
    record = read_provenance(features.folder, key=features.key) | {"source": source}
    (features.folder / "provenance.json").write_bytes(provenance_bytes(record, key=features.key))


def picture(run: Run, sample_id: str) -> np.ndarray:
    kept = run.pictures()
    assert kept is not None
    data = base64.b64decode(kept["images"][sample_id].partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of three noisy photographs, one of them large."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, size in enumerate([(40, 30), (400, 300), (120, 90)]):
        noise = np.random.default_rng(index).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.jpg")
    return folder


def test_drawn_scenes_are_drawn_again_without_loss_and_once(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = extracted(cache_dir, dataset="shapes", options={"count": 6, "image_size": 32, "seed": 3})
    run = a_run(cache_dir, features, "scene-000002", "scene-000005")
    assert collect_pictures(run, cache_dir=cache_dir) == pictures.Collected(2, 2, None)
    scene = open_source("shapes", options={"count": 6, "image_size": 32, "seed": 3}).read_image(2)
    np.testing.assert_array_equal(picture(run, "scene-000002"), scene)
    monkeypatch.setattr(origin, "open_source", None)  # whatever opens the data again fails
    assert collect_pictures(run, cache_dir=cache_dir) == pictures.Collected(2, 2, None)


def test_photographs_are_made_small(cache_dir: Path, photographs: Path) -> None:
    features = extracted(cache_dir, dataset="folder", data_dir=photographs)
    run = a_run(cache_dir, features, "0.jpg", "1.jpg")
    assert collect_pictures(run, cache_dir=cache_dir) == pictures.Collected(2, 2, None)
    assert picture(run, "1.jpg").shape == (SIDE * 3 // 4, SIDE, 3)
    assert picture(run, "0.jpg").shape == (30, 40, 3)
    assert (run.folder / "pictures.json").stat().st_size < 100_000


def test_data_that_has_moved_or_changed_is_not_shown_and_the_note_says_so(
    cache_dir: Path, photographs: Path
) -> None:
    features = extracted(cache_dir, dataset="folder", data_dir=photographs)
    run = a_run(cache_dir, features, "0.jpg")
    (photographs / "0.jpg").write_bytes((photographs / "2.jpg").read_bytes())
    changed = collect_pictures(run, cache_dir=cache_dir)
    assert changed.found == 0
    assert "no longer holds what was extracted" in str(changed.note)
    elsewhere = photographs.rename(photographs.with_name("elsewhere"))
    moved = collect_pictures(run, cache_dir=cache_dir)
    assert moved.found == 0
    assert "is not a folder" in str(moved.note)
    assert "--data-dir FOLDER" in str(moved.note)
    given = collect_pictures(run, cache_dir=cache_dir, data_dir=elsewhere)
    assert (given.found, given.note) == (1, f"from {elsewhere}, matched by id")


def test_pictures_that_were_found_once_stay_when_others_are_missing(
    cache_dir: Path, photographs: Path
) -> None:
    features = extracted(cache_dir, dataset="folder", data_dir=photographs)
    run = a_run(cache_dir, features, "0.jpg", "1.jpg", "2.jpg")
    elsewhere = photographs.rename(photographs.with_name("elsewhere"))
    (elsewhere / "1.jpg").unlink()
    (elsewhere / "2.jpg").write_bytes(b"torn")
    given = collect_pictures(run, cache_dir=cache_dir, data_dir=elsewhere)
    assert (given.found, given.wanted) == (1, 3)
    assert "1 of 3 images are not there" in str(given.note)
    assert "2.jpg: 4 bytes that are no JPEG, PNG" in str(given.note)
    assert collect_pictures(run, cache_dir=cache_dir) == given


def test_what_came_from_the_hub_is_never_asked_for(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = extracted(cache_dir, dataset="shapes", options={"count": 4, "image_size": 16})
    record_source(features, {"name": "flickr8k", "data_dir": None, "options": {}})
    monkeypatch.setattr(origin, "open_source", None)  # fails if it is called
    run = a_run(cache_dir, features, "scene-000000")
    found = collect_pictures(run, cache_dir=cache_dir)
    assert found.found == 0
    assert "came from the hub" in str(found.note)
    with pytest.raises(UsageError, match="pictures of flickr30k lie in a folder"):
        collect_pictures(run, cache_dir=cache_dir, dataset="flickr30k")


def test_a_place_that_is_only_recorded_is_shown_only_if_it_holds_what_was_extracted(
    cache_dir: Path, photographs: Path
) -> None:
    """A cache that came from somebody else must not put other files of this machine on the page."""
    features = extracted(cache_dir, dataset="shapes", options={"count": 4, "image_size": 16})
    record_source(features, {"name": "folder", "data_dir": str(photographs), "options": {}})
    found = collect_pictures(a_run(cache_dir, features, "0.jpg"), cache_dir=cache_dir)
    assert found.found == 0
    assert "no longer holds what was extracted" in str(found.note)


def test_imported_features_show_pictures_of_a_folder_that_is_named(
    cache_dir: Path, photographs: Path
) -> None:
    file = cache_dir / "features.npz"
    rows = np.eye(3, dtype=np.float32)
    np.savez(file, sample_id=np.array(["0.jpg", "1.jpg", "9.jpg"]), features=rows)
    imported = import_features(file, dataset="mine", encoder="theirs", modality="image", cache_dir=cache_dir)
    run = a_run(cache_dir, FeatureSet.open(imported.folder), "0.jpg", "9.jpg")
    assert "does not say how its images were read" in str(collect_pictures(run, cache_dir=cache_dir).note)
    with pytest.raises(UsageError, match="do not say how their images were read") as raised:
        collect_pictures(run, cache_dir=cache_dir, data_dir=photographs)
    assert "--dataset" in str(raised.value.hint)
    found = collect_pictures(run, cache_dir=cache_dir, dataset="folder", data_dir=photographs)
    assert (found.found, found.wanted) == (1, 2)


def test_a_folder_that_is_given_and_cannot_be_read_is_an_error(cache_dir: Path, tmp_path: Path) -> None:
    features = extracted(cache_dir, dataset="shapes", options={"count": 4, "image_size": 16})
    run = a_run(cache_dir, features, "scene-000000")
    with pytest.raises(SourceError, match="is not a folder"):
        collect_pictures(run, cache_dir=cache_dir, dataset="folder", data_dir=tmp_path / "nowhere")


def test_without_a_gallery_there_is_nothing_to_collect(cache_dir: Path) -> None:
    run = Run(cache_dir / "young")
    run.folder.mkdir()
    assert collect_pictures(run, cache_dir=cache_dir) == pictures.Collected(0, 0, None)
    assert run.pictures() is None
