"""Embeddings and adapters taken elsewhere: read back by each format's own library, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from align_cache.adapters.run_adapters import load_pair
from align_cache.cli import main
from align_cache.errors import ExportError, UsageError
from align_cache.exporting import FORMATS, Format, embedded_table, export
from align_cache.extraction.external import import_features
from align_cache.files import publishing_folder
from align_cache.judging.run_features import choose_split, open_run_features
from align_cache.pairing.embedding import embed_pairs, open_inputs
from align_cache.results import Run
from align_cache.settings import fit_config
from align_cache.training.fitting import fit
from tests.unit.stored import paired_sets, unit_rows
from tests.unit.test_fit import labelled, toy
from tests.unit.test_zero_shot import imported_prompts

Expected = dict[str, NDArray[Any]]


@pytest.fixture
def run(cache_dir: Path) -> Run:
    """A run on sixty pairs, twelve of them test images with one to three captions each."""
    paired_sets(cache_dir, captions=[1 + i % 3 for i in range(60)])
    return fit(toy(optim__epochs=2), cache_dir=cache_dir)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that do not divide the rows."""
    monkeypatch.setattr(embedded_table, "BLOCK_ROWS", 5)


def expected(run: Run, cache_dir: Path, split: str = "test") -> Expected:
    """What evaluation makes of the same split, and the ids of its rows."""
    config = fit_config(file=run.folder / "config.toml")
    joined = open_run_features(run.info(), config, cache_dir)
    _, pairs = choose_split(joined, config, split)
    embedded = embed_pairs(load_pair(run)[0], open_inputs(joined, pairs, device=torch.device("cpu")), pairs)
    return {
        "image": embedded.image.numpy(),
        "text": embedded.captions.numpy(),
        "image_id": pairs.sample_ids,
        "text_id": joined.text.sample_ids[pairs.caption_rows],
        "group_id": pairs.sample_ids[pairs.caption_image],
    }


def close(found: Any, wanted: NDArray[Any]) -> None:
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=1e-6)


def test_npz_holds_what_evaluation_embeds_with_its_ids(run: Run, cache_dir: Path, tmp_path: Path) -> None:
    record = export(run, to="npz", cache_dir=cache_dir, out=tmp_path / "made")
    with np.load(tmp_path / "made" / "embeddings.npz", allow_pickle=False) as archive:
        found = dict(archive)
    wanted = expected(run, cache_dir)
    assert found["image_embeddings"].dtype == np.float32
    close(found["image_embeddings"], wanted["image"])
    close(found["text_embeddings"], wanted["text"])
    close(np.linalg.norm(found["text_embeddings"], axis=1), np.ones(len(wanted["text"])))
    assert found["image_sample_id"].tolist() == wanted["image_id"].tolist()
    assert found["text_sample_id"].tolist() == wanted["text_id"].tolist()
    assert found["text_group_id"].tolist() == wanted["group_id"].tolist()
    assert set(found["text_split"].tolist()) == {"test"}
    said = json.loads(str(found["description"]))
    assert said == {key: record[key] for key in said}
    assert said["run"] == run.id
    assert said["rows"] == {"image": 12, "text": len(wanted["text"])}


def test_parquet_has_a_row_group_for_each_block_and_lists_of_one_length(run: Run, cache_dir: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = export(run, to="parquet", cache_dir=cache_dir)
    folder, wanted = Path(record["folder"]), expected(run, cache_dir)
    assert folder == run.folder / "exports" / "parquet"
    for modality, ids in (("image", "image_id"), ("text", "text_id")):
        file = pq.ParquetFile(folder / f"{modality}.parquet")
        table = file.read()
        assert file.num_row_groups == -(-len(wanted[ids]) // 5)
        assert table.schema.field("embeddings").type == pa.list_(pa.float32(), 8)
        close(np.stack(table["embeddings"].to_numpy()), wanted[modality])
        assert table["sample_id"].to_pylist() == wanted[ids].tolist()
        assert table["role"].null_count == len(table), "the run has neither trained nor validated on them"
        assert json.loads(table.schema.metadata[b"align_cache"])["run"] == run.id
    assert table["group_id"].to_pylist() == wanted["group_id"].tolist()


def test_words_keep_their_letters_and_no_words_are_null(cache_dir: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    words = ["Zwei Hunde im Schnee", "", "两只狗 🐕", "x" * 300, "é"] * 4
    file, rows = tmp_path / "captions.npz", unit_rows(np.random.default_rng(0), 20, 10)
    image, *_ = paired_sets(cache_dir, n=20, captions=1)
    np.savez(
        file, sample_id=[f"c{i}" for i in range(20)], group_id=image.sample_ids, text=words, features=rows
    )
    import_features(file, dataset="toy", encoder="worded", modality="text", cache_dir=cache_dir)
    config = toy(data__text_encoder="worded", evaluation__k=1, data__batch_size=2)
    run = fit(config, cache_dir=cache_dir)
    made = {
        to: Path(export(run, to=to, cache_dir=cache_dir, split="all")["folder"]) for to in ("npz", "parquet")
    }
    with np.load(made["npz"] / "embeddings.npz", allow_pickle=False) as found:
        assert found["text_caption"].tolist() == words
    table = pq.read_table(made["parquet"] / "text.parquet")
    assert table["caption"].to_pylist() == [word or None for word in words]


def test_datasets_loads_what_was_saved(run: Run, cache_dir: Path) -> None:
    from datasets import load_from_disk

    record = export(run, to="datasets", cache_dir=cache_dir, split="val")
    folder, wanted = Path(record["folder"]), expected(run, cache_dir, "val")
    assert folder.name == "datasets-val"
    for modality, ids in (("image", "image_id"), ("text", "text_id")):
        loaded = load_from_disk(str(folder / modality)).with_format("numpy")
        close(loaded["embeddings"][:], wanted[modality])
        assert list(loaded["sample_id"][:]) == wanted[ids].tolist()
        assert set(loaded["role"][:]) == {"val"}
        assert json.loads(loaded.info.description)["run"] == run.id
    assert not list(folder.glob("*.arrow"))


def test_faiss_finds_what_the_dense_matrix_finds(run: Run, cache_dir: Path) -> None:
    faiss = pytest.importorskip("faiss")
    import pyarrow.parquet as pq

    folder = Path(export(run, to="faiss", cache_dir=cache_dir)["folder"])
    wanted = expected(run, cache_dir)
    index = faiss.read_index(str(folder / "image.faiss"))
    assert (index.ntotal, index.d, index.metric_type) == (12, 8, faiss.METRIC_INNER_PRODUCT)
    scores, places = index.search(wanted["text"], 3)
    cosines = wanted["text"] @ wanted["image"].T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(places, order)
    close(scores, np.take_along_axis(cosines, order, axis=1))
    rows = pq.read_table(folder / "image.parquet")
    assert "embeddings" not in rows.column_names
    assert rows["sample_id"].to_pylist() == wanted["image_id"].tolist()
    assert faiss.read_index(str(folder / "text.faiss")).ntotal == len(wanted["text"])


def test_safetensors_holds_the_checkpoint_and_all_it_takes_to_use_it(run: Run, cache_dir: Path) -> None:
    from safetensors import safe_open

    folder = Path(export(run, to="safetensors", cache_dir=cache_dir, checkpoint="last")["folder"])
    pair, epoch = load_pair(run, "last")
    with safe_open(folder / "adapters.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        said, found = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert found.keys() == pair.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in pair.state_dict().items())
    described = json.loads(said["description"])
    assert described["epoch"] == epoch == 2
    assert described["config"] == run.config()
    assert folder.name == "safetensors-last"


def test_all_splits_say_what_each_image_was_to_the_run(cache_dir: Path) -> None:
    """Thirty-six images are of the train split, ten of them train; captions share their image's role."""
    paired_sets(cache_dir)
    run = fit(toy(data__num_samples=10, optim__epochs=2), cache_dir=cache_dir)
    folder = Path(export(run, to="npz", cache_dir=cache_dir, split="all")["folder"])
    with np.load(folder / "embeddings.npz") as found:
        split, role = found["image_split"], found["image_role"]
        of_image = dict(zip(found["image_sample_id"].tolist(), role.tolist(), strict=True))
        of_text = [of_image[group] for group in found["text_group_id"].tolist()]
        assert found["text_role"].tolist() == of_text
    assert len(split) == 60
    assert (role == "train").sum() == 10
    assert set(split[role == "train"].tolist()) == {"train"}
    np.testing.assert_array_equal(role == "val", split == "val")


def test_the_same_run_gives_the_same_bytes(run: Run, cache_dir: Path, tmp_path: Path) -> None:
    formats: tuple[Format, ...] = ("safetensors", "npz", "parquet")
    for to in formats:
        files = [
            export(run, to=to, cache_dir=cache_dir, out=tmp_path / f"{to}-{name}")["files"] for name in "ab"
        ]
        assert files[0] == files[1]


def test_another_dataset_is_embedded_with_its_labels_and_without_captions(run: Run, cache_dir: Path) -> None:
    labelled(cache_dir)
    notes: list[str] = []
    record = export(run, to="npz", cache_dir=cache_dir, dataset="classes", on_note=notes.append)
    assert record["rows"] == {"image": 90}
    assert (record["dataset"], record["trained_on"]) == ("classes", "toy")
    assert any("only its images" in note for note in notes)
    with np.load(Path(record["folder"]) / "embeddings.npz") as found:
        assert found["image_label"].tolist() == [0, 1, 2] * 30
        assert "image_role" not in found
        assert not [name for name in found if name.startswith("text")]
    some = export(run, to="npz", cache_dir=cache_dir, dataset="classes", split="test")
    assert (some["rows"], Path(some["folder"]).name) == ({"image": 30}, "npz-classes-test")
    with pytest.raises(UsageError, match="has no val images; its splits: test, train"):
        export(run, to="npz", cache_dir=cache_dir, dataset="classes", split="dev")


def test_class_prompts_come_with_the_class_that_each_is_of(run: Run, cache_dir: Path) -> None:
    labelled(cache_dir)
    imported_prompts(cache_dir)
    record = export(run, to="npz", cache_dir=cache_dir, dataset="classes", split="test")
    assert record["rows"] == {"image": 30, "text": 6}
    with np.load(Path(record["folder"]) / "embeddings.npz") as found:
        assert found["text_label"].tolist() == [0, 1, 2] * 2
        assert found["text_group_id"].tolist() == ["ant", "bee", "cow"] * 2
        assert found["text_embeddings"].shape == (6, 8)


def test_captions_of_another_dataset_go_with_their_images(run: Run, cache_dir: Path, tmp_path: Path) -> None:
    """Five images, the text set in another order and with a caption of an image that is not there."""
    generator, file = np.random.default_rng(0), tmp_path / "other.npz"
    ids, split = np.array(list("abcde")), np.array(["train", "val", "train", "val", "val"])
    image, text = unit_rows(generator, 5, 12), unit_rows(generator, 7, 10)
    np.savez(file, sample_id=ids, features=image, split=split)
    import_features(file, dataset="other", encoder="image", modality="image", cache_dir=cache_dir)
    captions = {"sample_id": np.array([f"t{i}" for i in range(7)]), "group_id": np.array(list("dbxbace"))}
    np.savez(file, features=text, **captions)
    import_features(file, dataset="other", encoder="text", modality="text", cache_dir=cache_dir)
    record = export(run, to="npz", cache_dir=cache_dir, dataset="other", split="val")
    with np.load(Path(record["folder"]) / "embeddings.npz") as found:
        assert found["image_sample_id"].tolist() == ["b", "d", "e"]
        assert found["text_group_id"].tolist() == ["b", "b", "d", "e"]
        assert found["text_sample_id"].tolist() == ["t1", "t3", "t0", "t6"]
        assert set(found["text_split"].tolist()) == {"val"}
        with torch.inference_mode():
            pair = load_pair(run)[0]
            wanted = torch.nn.functional.normalize(pair.text(torch.from_numpy(text[[1, 3, 0, 6]])))
        np.testing.assert_allclose(found["text_embeddings"], wanted, rtol=0, atol=1e-2)  # stored as float16


def test_an_export_is_replaced_only_when_asked_and_nothing_else_ever(run: Run, cache_dir: Path) -> None:
    first = export(run, to="safetensors", cache_dir=cache_dir)
    with pytest.raises(ExportError, match="is there already"):
        export(run, to="safetensors", cache_dir=cache_dir)
    again = export(run, to="safetensors", cache_dir=cache_dir, overwrite=True)
    assert again["files"] == first["files"]
    mine = cache_dir / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="did not write"):
        export(run, to="safetensors", cache_dir=cache_dir, out=mine, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("record", ["{}", "[]", "not JSON", '{"files": [{"file": "other.txt"}]}', None])
def test_what_lies_beside_a_record_and_is_not_in_it_is_never_replaced(
    run: Run, cache_dir: Path, record: str | None
) -> None:
    """Another program's export.json, and notes that somebody keeps beside an export."""
    mine = cache_dir / "mine"
    export(run, to="safetensors", cache_dir=cache_dir, out=mine)
    if record is not None:
        (mine / "export.json").write_text(record)
    (mine / "notes").mkdir()
    (mine / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="did not write"):
        export(run, to="safetensors", cache_dir=cache_dir, out=mine, overwrite=True)
    assert (mine / "notes" / "thesis.txt").read_text() == "years of work"


def test_every_format_knows_its_own_files_again(run: Run, cache_dir: Path) -> None:
    for to in ("npz", "parquet", "datasets"):
        made = [export(run, to=to, cache_dir=cache_dir, overwrite=True)["files"] for _ in range(2)]
        assert [each["file"] for each in made[0]] == [each["file"] for each in made[1]]


def test_the_documented_ways_to_read_an_export_work(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python block of docs/export.md, on a run with linear adapters."""
    for package in ("faiss", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    paired_sets(cache_dir)
    run = fit(toy(adapter__type="linear", optim__epochs=2), cache_dir=cache_dir)
    for to in FORMATS:
        export(run, to=to, cache_dir=cache_dir, out=tmp_path / "exports" / to)
    monkeypatch.chdir(tmp_path)
    features = unit_rows(np.random.default_rng(0), 4, 12)
    known: dict[str, Any] = {
        "features": features,
        "image_features": torch.from_numpy(features),
        "queries": expected(run, cache_dir)["text"],
    }
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    made = []
    for block in re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
        exec(block, known)
        made.append(dict(known))
    by_onnx, by_hand = (each["embeddings"] for each in made[:2])
    close(by_onnx, by_hand.numpy())
    assert set(made[2]["best"]) <= set(known["ids"][:, 0])
    assert len(known["rows"]) == len(known["queries"])


def test_what_fails_half_way_leaves_what_was_there(
    run: Run, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(export(run, to="npz", cache_dir=cache_dir)["folder"])
    before = (folder / "embeddings.npz").read_bytes()

    def full(*_: Any) -> NDArray[np.float32]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded_table.EmbeddedTable, "embeddings", full)
    with pytest.raises(OSError, match="No space"):
        export(run, to="npz", cache_dir=cache_dir, overwrite=True)
    assert (folder / "embeddings.npz").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["npz"], "nothing half-written is left"


def test_a_folder_that_cannot_take_its_place_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, rename = tmp_path / "place", Path.replace
    with publishing_folder(place) as folder:
        (folder / "first").touch()

    def refused(self: Path, target: Path) -> Path:
        if target == place and (self / "second").exists():
            raise OSError(30, "Read-only file system")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="Read-only"), publishing_folder(place, replace=True) as folder:
        (folder / "second").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["place", "first"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"to": "onnx", "split": "test"}, "no split and no dataset"),
        ({"to": "npz", "out": Path("made.npz")}, "named like a file"),
        ({"to": "csv"}, "there is no format 'csv'"),
    ],
)
def test_what_cannot_be_meant_is_refused(cache_dir: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        export(cache_dir=cache_dir, **asked)


def test_without_an_extra_the_command_that_installs_it_is_named(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align_cache.runtime.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--to faiss needs faiss, which is not installed") as refused:
        export(to="faiss", cache_dir=cache_dir)
    assert refused.value.hint == "pip install 'align-cache[faiss]'"


def test_the_command_prints_the_folder_and_says_what_is_in_it(
    run: Run, cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", run.id, "--to", "npz", "--out", str(tmp_path / "made"), "--cache-dir", str(cache_dir)]
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "made")
    assert "12 image and 24 text embeddings of toy (test), 8 components each" in err
    assert main(line) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*line, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"image": 12, "text": 24}
    assert main(["export", "--to", "csv"]) == 2


def test_the_command_offers_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--to", "nothing"]) == 2
    said = capsys.readouterr().err
    assert all(f"'{to}'" in said for to in FORMATS)
