"""Damage of every sort to every kind of file of a run: refused by name when it is read, or without effect."""

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align_cache.adapters.checkpoint import load_adapters, load_trainer
from align_cache.adapters.run_adapters import load_pair
from align_cache.errors import AlignCacheError, CacheError, CorruptError, PairingError
from align_cache.extraction.external import import_features
from align_cache.files import checksum
from align_cache.judging.evaluation import evaluate
from align_cache.results import Run, find_run
from align_cache.settings import EvalConfig
from align_cache.training.fitting import fit, resume_fit
from tests.unit.mutations import ON_BYTES, as_json, mutate_json
from tests.unit.stored import paired_sets
from tests.unit.test_damage import delete, empty, flip, truncate
from tests.unit.test_fit import toy

ADAPTERS, TRAINER = "checkpoints/adapters-0004.safetensors", "checkpoints/trainer-0004.pt"
INDEX = "checkpoints/index.json"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run that was stopped after its last epoch."""
    cache_dir = tmp_path_factory.mktemp("fitted")
    paired_sets(cache_dir)
    run = fit(toy(log__viz_frequency=0, loss__learn_temperature=True), cache_dir=cache_dir)
    run.append_result({"kind": "evaluation", "note": "ä"})
    run.update(status="interrupted")
    return cache_dir


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Run:
    shutil.copytree(fitted, tmp_path / "cache", dirs_exist_ok=True)
    return find_run(cache_dir=tmp_path / "cache")


def read(run: Run) -> list[Any]:
    """Read everything of a run as the commands do."""
    adapters, epoch = load_pair(run, "last")
    return [
        run.info(), run.config(), run.records(), run.results(), epoch,
        {name: tensor.tolist() for name, tensor in adapters.state_dict().items()},
        load_adapters(run.checkpoints, "best")[1], load_trainer(run.checkpoints)[1],
    ]  # fmt: skip


def refusal(run: Run) -> str | None:
    """Why a run cannot be read; None where it can. Any other exception is a fault."""
    try:
        read(run)
    except AlignCacheError as error:
        return error.message
    return None


def of_another_run(path: Path) -> None:
    """Put a file of the same kind there that another epoch, or nobody, wrote."""
    if path.suffix == ".safetensors":
        shutil.copy(path, path.with_name("mine"))
        path.write_bytes(path.with_name("mine").read_bytes().replace(b'"4"', b'"3"'))
    else:
        torch.save({"best": 1.0}, path)


@pytest.mark.parametrize("sort", [truncate, empty, flip, delete, of_another_run])
@pytest.mark.parametrize("name", [ADAPTERS, TRAINER])
def test_a_checkpoint_that_is_not_the_published_one_is_refused_by_name(
    name: str, sort: Callable[[Path], None], run: Run
) -> None:
    sort(run.folder / name)
    with pytest.raises(CorruptError, match=Path(name).name):
        read(run)
    with pytest.raises(CorruptError, match=Path(name).name):
        resume_fit(str(run.folder), cache_dir=run.folder.parents[1])


def seal(run: Run, name: str) -> None:
    """Let the index say the checksum that a forged file has."""
    index = json.loads((run.folder / INDEX).read_text())
    for entry in index.values():
        for part in entry.values():
            if isinstance(part, dict) and part["file"] == Path(name).name:
                part["xxh3_128"] = checksum(run.folder / name)
    (run.folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("name", [ADAPTERS, TRAINER])
def test_a_checkpoint_of_any_bytes_with_a_fitting_checksum_gives_an_error_of_ours_or_opens(
    name: str, run: Run
) -> None:
    path, rng = run.folder / name, random.Random(name)
    before = path.read_bytes()
    for _ in range(60):
        path.write_bytes(rng.choice(ON_BYTES)(rng, before))
        seal(run, name)
        assert "\n" not in (refusal(run) or "")


FORGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda state: [state],
    "without the optimiser": lambda state: {"best": state["best"]},
    "without the best": lambda state: {"optimizer": state["optimizer"]},
    "best is text": lambda state: {**state, "best": "good"},
    "another optimiser's": lambda state: {**state, "optimizer": {"state": {}, "param_groups": []}},
    "the optimiser is a number": lambda state: {**state, "optimizer": 3},
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_trainer_state_that_is_none_of_this_run_is_refused_on_resuming(forgery: str, run: Run) -> None:
    state = load_trainer(run.checkpoints)[0]
    torch.save(FORGED[forgery](copy.deepcopy(state)), run.folder / TRAINER)
    seal(run, TRAINER)
    with pytest.raises(CorruptError, match=r"trainer-0004\.pt|is not of its config") as caught:
        resume_fit(str(run.folder), cache_dir=run.folder.parents[1])
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["run.json", "config.toml", "records.jsonl", "results.jsonl", INDEX])
def test_any_bytes_in_a_text_of_a_run_give_an_error_of_ours_or_are_read(name: str, run: Run) -> None:
    """They have no checksum: what stays well-formed is read, as docs/reliability.md says."""
    path, rng = run.folder / name, random.Random(name)
    before, refused = path.read_bytes(), 0
    for _ in range(60):
        path.write_bytes(rng.choice(ON_BYTES)(rng, before))
        refused += refusal(run) is not None
    assert refused > 20


@pytest.mark.parametrize(
    ("name", "sort", "match"),
    [
        ("run.json", empty, r"run\.json is not JSON"),
        ("run.json", delete, r"run\.json is missing"),
        ("config.toml", empty, "last checkpoint of .* is not of its config"),  # TOML, of nothing but defaults
        ("config.toml", delete, r"config\.toml"),
        (INDEX, empty, r"index\.json is not JSON"),
        (INDEX, delete, "has no last checkpoint"),
    ],
)
def test_a_text_of_a_run_that_is_missing_or_empty_is_refused(
    name: str, sort: Callable[[Path], None], match: str, run: Run
) -> None:
    sort(run.folder / name)
    with pytest.raises(AlignCacheError, match=match):
        read(run)


def test_an_index_of_checkpoints_of_another_form_is_refused(run: Run) -> None:
    path, rng = run.folder / INDEX, random.Random(0)
    index, whole, refused = json.loads(path.read_bytes()), read(run), 0
    for _ in range(150):
        path.write_bytes(as_json(mutate_json(rng, index)))
        try:
            assert read(run)[5] == whole[5], "other weights"
        except AlignCacheError:
            refused += 1
    assert refused > 100


def test_an_index_never_leads_out_of_its_folder(run: Run, tmp_path: Path) -> None:
    index = json.loads((run.folder / INDEX).read_bytes())
    shutil.copy(run.folder / ADAPTERS, tmp_path / "outside.safetensors")
    (run.folder / ADAPTERS).unlink()
    for name in ("../../../../outside.safetensors", str(tmp_path / "outside.safetensors")):
        index["last"]["adapters"]["file"] = name
        (run.folder / INDEX).write_text(json.dumps(index))
        with pytest.raises(CorruptError, match=r"checkpoints/outside\.safetensors is missing"):
            load_adapters(run.checkpoints, "last")


def test_a_run_is_judged_on_the_very_features_it_was_trained_on_or_not_at_all(run: Run) -> None:
    """An adapter can never meet features of another width: its run names each feature set by its key."""
    cache_dir = run.folder.parents[1]
    key8 = run.info()["image"]["key8"]
    shutil.rmtree(cache_dir / "features")
    paired_sets(cache_dir, dims=(14, 10, 8))
    with pytest.raises(CacheError, match=f"no feature set of toy by image@{key8}"):
        evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)
    with pytest.raises(CacheError, match=f"no feature set of toy by image@{key8}"):
        resume_fit(str(run.folder), cache_dir=cache_dir)


def test_a_probe_of_one_class_is_refused_before_any_work(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    for name, dim in (("image", 12), ("reference", 8)):
        rows = np.random.default_rng(0).standard_normal((6, dim))
        np.savez(
            cache_dir / "classes.npz", sample_id=list("abcdef"), features=rows, label=np.full(6, 7),
            split=["train", "test"] * 3,
        )  # fmt: skip
        import_features(
            cache_dir / "classes.npz", dataset="classes", encoder=name, modality="image", cache_dir=cache_dir
        )
    with pytest.raises(PairingError, match="its train rows are all of class 7, a classifier needs two"):
        fit(toy(evaluation__probe="classes"), cache_dir=cache_dir)
    assert not (cache_dir / "runs").exists()


def test_a_line_cut_inside_a_character_is_not_a_record(run: Run) -> None:
    path = run.folder / "results.jsonl"
    whole = run.results()
    path.write_bytes(path.read_bytes() + '{"note": "ä'.encode()[:-1])
    assert run.results() == whole
    run.append_result({"kind": "other"})
    assert run.results() == [*whole, {"kind": "other"}]
