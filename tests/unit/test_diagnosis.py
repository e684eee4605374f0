"""doctor: what works, what does not, and that every command it names does what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from email import message_from_string
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from align_cache import Run, doctor, fit
from align_cache.cli import main
from align_cache.diagnosis import Diagnosis, Problem, machine, packages
from align_cache.diagnosis.words import diagnosis_lines
from align_cache.encoders import missing_weights, resolve
from align_cache.encoders.base import EncoderRequest
from align_cache.errors import OfflineError
from align_cache.lock import holder_of, holding
from align_cache.results import create_run
from align_cache.sources import missing_copy, open_source
from tests.unit.stored import paired_sets
from tests.unit.test_fit import toy
from tests.unit.test_house import loaded_after


def of_cache(diagnosis: Diagnosis, cache_dir: Path) -> list[Problem]:
    """The problems that name something of the cache."""
    return [each for each in diagnosis.problems if str(cache_dir) in each.found + each.mend]


def command_in(problem: Problem, start: str) -> list[str]:
    """The arguments of the command that a problem names, to be run as they are."""
    found = re.search(rf"align-cache ({start}.*?)(?:$|, |;)", problem.mend)
    assert found, problem.mend
    return shlex.split(found[1])


def flip_last_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def started_run(cache_dir: Path, **info: Any) -> Run:
    run = create_run(cache_dir / "runs", cache_dir, adapter="linear", config_toml="seed = 0\n")
    run.update(id=run.id, **info)
    return run


@pytest.fixture
def no_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing was fetched yet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


def test_a_whole_cache_has_nothing_amiss(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    seen = doctor(cache_dir=cache_dir, deep=True)
    assert not of_cache(seen, cache_dir)
    assert seen.cache is not None
    assert (seen.cache.sets, seen.cache.unfinished, seen.cache.held) == (3, 0, ())
    assert seen.cache.set_bytes == sum(path.stat().st_size for path in cache_dir.rglob("shard-*.h5"))


def test_a_cache_that_is_not_there_yet_is_no_problem(tmp_path: Path) -> None:
    seen = doctor(cache_dir=tmp_path / "none" / "yet")
    assert not of_cache(seen, tmp_path)
    assert not (tmp_path / "none").exists()
    assert any("the first command makes it" in line for line in diagnosis_lines(seen))


def test_a_short_shard_is_found_at_once_and_the_named_command_removes_its_set(
    cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _, _ = paired_sets(cache_dir)
    shard = image.folder / "shard-00000.h5"
    del image
    shard.write_bytes(shard.read_bytes()[:-1])
    assert main(["doctor", "--cache-dir", str(cache_dir)]) == 1
    assert "1 broken" in capsys.readouterr().out
    (problem,) = of_cache(doctor(cache_dir=cache_dir), cache_dir)
    assert problem.broken
    assert f"{shard.name} has" in problem.found
    assert main([*command_in(problem, "cache rm"), "--yes"]) == 0
    assert not of_cache(doctor(cache_dir=cache_dir), cache_dir)


def test_the_command_that_made_a_set_mends_it_as_doctor_says(cache_dir: Path) -> None:
    for line, columns in (
        ("extract --set options.count=8 --weights random", "--dataset shapes --encoder small-cnn"),
        ("extract --set options.count=8 --weights random", "--dataset shapes --name own --encoder small-cnn"),
        (f"import {cache_dir}/rows.npz --modality image", "--dataset mine --encoder theirs"),
    ):
        np.savez(cache_dir / "rows.npz", sample_id=["a", "b"], features=np.eye(2))
        command = [*line.split(), *columns.split(), "--cache-dir", str(cache_dir)]
        assert main(command) == 0
        (shard,) = cache_dir.glob("features/*/*/shard-00000.h5")
        shard.write_bytes(shard.read_bytes()[:-1])
        (problem,) = of_cache(doctor(cache_dir=cache_dir), cache_dir)
        verb = line.split()[0]
        named = [*columns.split(), "--cache-dir", str(cache_dir)]
        assert command_in(problem, verb)[-len(named) :] == named
        assert main(command) == 0
        assert not of_cache(doctor(cache_dir=cache_dir, deep=True), cache_dir)
        assert main([*command_in(problem, "cache rm"), "--yes"]) == 0


def test_a_flipped_bit_is_found_by_a_deep_look(cache_dir: Path) -> None:
    image, _, _ = paired_sets(cache_dir)
    shard = image.folder / "shard-00000.h5"
    del image
    flip_last_bit(shard)
    assert not of_cache(doctor(cache_dir=cache_dir), cache_dir)
    (problem,) = of_cache(doctor(cache_dir=cache_dir, deep=True), cache_dir)
    assert problem.broken
    assert "its bytes do not fit its checksum" in problem.found


def test_a_set_that_a_newer_release_wrote_asks_for_that_release(cache_dir: Path, write_toy: Any) -> None:
    folder = write_toy()
    document = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(document | {"format": 2}))
    (problem,) = (each for each in doctor(cache_dir=cache_dir).problems if folder.name in each.found)
    assert problem.broken
    assert problem.mend == "pip install --upgrade align-cache"


def test_an_unfinished_set_is_a_note_and_none_while_it_is_written(cache_dir: Path, write_toy: Any) -> None:
    folder = write_toy(stop=1, finish=False)
    (problem,) = of_cache(doctor(cache_dir=cache_dir), cache_dir)
    assert not problem.broken
    with holding(folder):
        seen = doctor(cache_dir=cache_dir)
    assert not of_cache(seen, cache_dir)
    assert seen.cache is not None
    (held,) = seen.cache.held
    assert held.startswith(f"features/toy/{folder.name}: pid {os.getpid()} on ")
    assert main([*command_in(problem, "cache rm"), "--yes"]) == 0
    assert not of_cache(doctor(cache_dir=cache_dir), cache_dir)


@pytest.mark.parametrize("shared", [False, True])
def test_who_holds_a_folder_is_known_without_touching_it(tmp_path: Path, shared: bool) -> None:
    folder = tmp_path / "set"
    assert holder_of(folder) is None
    assert not list(tmp_path.iterdir())
    with holding(folder, shared=shared):
        assert f"pid {os.getpid()}" in (holder_of(folder) or "")
        assert f"pid {os.getpid()}" in (holder_of(folder) or ""), "asking took nothing away"
    (tmp_path / "set.holder").write_text("pid 1 on a machine that was switched off")
    assert holder_of(folder) is None


def test_runs_are_counted_as_they_stand(cache_dir: Path) -> None:
    started_run(cache_dir, status="finished")
    started_run(cache_dir, status="failed")
    stopped, swept = started_run(cache_dir, status="running"), started_run(cache_dir, status="interrupted")
    swept.update(sweep="lr")
    running = started_run(cache_dir, status="running")
    with holding(running.folder / "training"):
        seen = doctor(cache_dir=cache_dir)
    assert seen.runs == {"finished": 1, "failed": 1, "stopped": 2, "running": 1}
    notes = {each.found: each.mend for each in seen.problems if "stopped" in each.found}
    resume = f"align-cache fit --resume {stopped.id} --cache-dir {cache_dir}"
    assert notes == {
        f"1 of the runs stopped before the end: {stopped.id}": resume,
        f"1 of the runs of the sweep lr stopped before the end: {swept.id}": (
            "the sweep's own command goes on"
        ),
    }


def test_runs_that_cannot_be_read_are_broken_and_the_others_still_counted(cache_dir: Path) -> None:
    started_run(cache_dir, status="finished")
    torn, unset = started_run(cache_dir, status="finished"), started_run(cache_dir, status="finished")
    (torn.folder / "run.json").write_text('{"id": ')
    (unset.folder / "config.toml").unlink()
    seen = doctor(cache_dir=cache_dir)
    assert seen.runs == {"finished": 1, "damaged": 2}
    assert [each.found for each in of_cache(seen, cache_dir) if each.broken] == [
        f"{torn.folder}/run.json is not JSON: Expecting value: line 1 column 8 (char 7)",
        f"{unset.folder}/config.toml is missing; it holds the settings of the run",
    ]
    (cache_dir / "runs" / "index.jsonl").write_text("{\n")
    assert any(
        "index.jsonl holds a line that is not JSON" in each.found
        for each in doctor(cache_dir=cache_dir).problems
    )


def test_a_checkpoint_that_was_changed_is_found_by_a_deep_look(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(optim__epochs=2), cache_dir=cache_dir)
    assert not of_cache(doctor(cache_dir=cache_dir, deep=True), cache_dir)
    for weights in run.checkpoints.glob("*.safetensors"):
        flip_last_bit(weights)
    assert not of_cache(doctor(cache_dir=cache_dir), cache_dir)
    (problem,) = of_cache(doctor(cache_dir=cache_dir, deep=True), cache_dir)
    assert "its checksum differs" in problem.found


def test_a_checkpoint_of_other_settings_is_found_by_a_deep_look(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(optim__epochs=2), cache_dir=cache_dir)
    run.update(embed_dim=run.info()["embed_dim"] + 1)
    (problem,) = of_cache(doctor(cache_dir=cache_dir, deep=True), cache_dir)
    assert f"the best checkpoint of {run.id} is not of its config" in problem.found
    assert problem.broken


def test_half_written_files_of_a_run_are_named_with_the_command_that_removes_them(cache_dir: Path) -> None:
    run = started_run(cache_dir, status="finished")
    half = run.checkpoints / ".trainer-0001.pt.0123.tmp"
    half.write_bytes(b"half")
    export = run.folder / "exports" / ".npz.4567.tmp"
    export.mkdir(parents=True)
    (export / "embeddings.npz").write_bytes(b"half")
    (problem,) = of_cache(doctor(cache_dir=cache_dir), cache_dir)
    assert problem.mend == f"rm -r {half} {export}"
    subprocess.run(shlex.split(problem.mend), check=True)
    assert not of_cache(doctor(cache_dir=cache_dir), cache_dir)


def test_a_file_in_place_of_a_cache_is_broken(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    seen = doctor(cache_dir=tmp_path / "cache")
    assert seen.cache is None
    (problem,) = [each for each in seen.problems if each.broken]
    assert problem.found.endswith("cache is a file, expected a folder")
    assert "ALIGN_CACHE_DIR" in problem.mend


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_said(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1_000_000))
    found = [
        (each.found, each.broken)
        for each in doctor(cache_dir=cache_dir).problems
        if each.found.endswith(("to", str(cache_dir)))
    ]
    assert (f"{cache_dir} cannot be written to", True) in found
    assert (f"1 MB are free on the disk of {cache_dir}", False) in found


def test_what_an_encoder_or_a_dataset_wants_is_what_extraction_would_say(no_hub_cache: Path) -> None:
    for name in ("resnet18", "dinov2", "clip-text-b32"):
        with pytest.raises(OfflineError) as refused:
            resolve(EncoderRequest(name))
        assert (missing_weights(name) or "nothing") in str(refused.value)
    for name in ("flickr30k", "cifar10"):
        with pytest.raises(OfflineError) as refused:
            open_source(name)
        assert (missing_copy(name) or "nothing") in str(refused.value)


def test_what_was_fetched_before_is_ready(no_hub_cache: Path, tmp_path: Path) -> None:
    def fetched(repository: str, file: str) -> None:
        folder = no_hub_cache / repository
        (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)
        (folder / "snapshots" / ("a" * 40) / file).write_bytes(b"any")

    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "resnet18-f37072fd.pth").write_bytes(b"any")
    fetched("models--facebook--dinov2-base", "model.safetensors")
    fetched("models--google-bert--bert-base-uncased", "config.json")
    fetched("datasets--uoft-cs--cifar10", "test.parquet")
    seen = doctor(cache_dir=tmp_path / "cache")
    state = {need.name: need.state for need in (*seen.encoders, *seen.datasets)}
    ready = {"resnet18", "dinov2", "cifar10", "small-cnn", "tokens", "shapes"}
    assert {state[name] for name in ready} == {"ready"}
    assert {state[name] for name in ("bert", "distilbert", "flickr30k")} == {"to fetch"}
    assert {state[name] for name in ("coco", "folder")} == {"from disk"}


def test_a_token_is_seen_and_never_shown(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    assert main(["doctor", "--json", "--cache-dir", str(cache_dir)]) in (0, 1)
    out, err = capsys.readouterr()
    assert json.loads(out)["hub"]["token"] is True
    assert main(["doctor", "--cache-dir", str(cache_dir)]) in (0, 1)
    shown, said = capsys.readouterr()
    assert "a token is there" in shown
    assert "secret" not in out + err + shown + said


def pretend(monkeypatch: pytest.MonkeyPatch, needs: dict[str, list[str]], versions: dict[str, str]) -> None:
    """Packages and what they say that they need, in place of the installed ones."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    extras = "Name: align-cache\nProvides-Extra: timm\nProvides-Extra: ray\nProvides-Extra: dev\n"
    monkeypatch.setattr(metadata, "requires", lambda name: needs.get(name))
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "metadata", lambda _: message_from_string(extras))


NEEDS = {
    "align-cache": [
        "torch>=2.11",
        "torchvision>=0.26",
        "numpy>=2.0",
        'timm>=1.0; extra == "timm"',
        'ray>=2.40; extra == "ray"',
        'pytest>=8; extra == "dev"',
    ],
    "torchvision": ["torch==2.15.0", "pillow!=8.3,>=5.3", 'gdown; extra == "gdown"'],
}
FITTING = {"torch": "2.15.0+cpu", "torchvision": "0.30", "numpy": "2.4", "pillow": "13.0", "timm": "1.2"}


def test_packages_that_fit_are_no_problem_and_an_absent_extra_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, NEEDS, FITTING)
    (needed, extras), problems = packages.look_at_packages()
    assert not problems
    assert [each.name for each in needed] == ["torch", "torchvision", "numpy"]
    assert {each.name: each.present for each in extras} == {"timm": True, "ray": False}
    assert extras[0].command == "pip install 'align-cache[ray]'"


@pytest.mark.parametrize(
    ("version", "found", "mend"),
    [
        ({"numpy": "1.26"}, "numpy 1.26 is installed, >=2.0 is needed", "pip install 'numpy>=2.0'"),
        ({"numpy": None}, "numpy is not installed, >=2.0 is needed", "pip install 'numpy>=2.0'"),
        (
            {"torch": "2.14.1"},
            "torch 2.14.1 is installed, ==2.15.0 is needed by torchvision 0.30",
            "pip install --upgrade torchvision torch",
        ),
        (
            {"pillow": None},
            "pillow is not installed, !=8.3,>=5.3 is needed by torchvision 0.30",
            "pip install --upgrade torchvision pillow",
        ),
    ],
)
def test_a_package_that_is_missing_or_does_not_fit_is_broken(
    version: dict[str, str | None], found: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {name: value for name, value in (FITTING | version).items() if value is not None}
    pretend(monkeypatch, NEEDS, there)
    _, problems = packages.look_at_packages()
    assert problems == [Problem(found, mend, broken=True)]


def test_an_extra_that_is_too_old_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, NEEDS, FITTING | {"timm": "0.9"})
    _, (problem,) = packages.look_at_packages()
    assert problem == Problem(
        "timm 0.9 is installed, >=1.0 is needed by the extra timm",
        "pip install 'align-cache[timm]'",
        broken=False,
    )


def test_a_package_on_the_path_that_was_never_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    _, (problem,) = packages.look_at_packages()
    assert problem.mend.endswith("pip install -e .")


def test_one_broken_package_hides_nothing_else(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(machine, "this_machine", broken)
    seen = doctor(cache_dir=cache_dir)
    assert (seen.machine, seen.usable) == (None, False)
    assert seen.cache is not None
    assert seen.problems[0].found == (
        "this machine cannot be looked at: libcudart.so.13: cannot open shared object file"
    )
    assert list(diagnosis_lines(seen))


@pytest.mark.parametrize(
    ("built", "hidden", "said"),
    [
        (None, None, "was built without CUDA"),
        ("13.2", "", "is shown CUDA_VISIBLE_DEVICES=''"),
        ("13.2", None, "was built for CUDA 13.2"),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_noted_with_the_reason(
    built: str | None, hidden: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(machine.this_machine(), accelerators=())
    driver = tmp_path / "version"
    monkeypatch.setattr(machine, "_NVIDIA_DRIVER", driver)
    assert not list(machine.machine_problems(here))
    driver.write_text("NVRM version")
    monkeypatch.setattr("torch.version.cuda", built)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (problem,) = machine.machine_problems(here)
    assert problem.found.endswith(said)
    seen = replace(here, accelerators=(machine.Accelerator("cuda", "H100", 80_000_000_000),))
    assert not list(machine.machine_problems(seen))


def test_every_gpu_is_listed_with_its_memory(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [SimpleNamespace(name=f"GPU {i}", total_memory=24_000_000_000) for i in range(2)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", gpus.__getitem__)
    here = machine.this_machine()
    assert (here.device, here.fast_bf16) == ("cuda", True)
    shown = "\n".join(diagnosis_lines(replace(doctor(cache_dir=cache_dir), machine=here)))
    assert "cuda: GPU 0, 24.00 GB; cuda: GPU 1, 24.00 GB; --device auto is cuda" in shown


@pytest.mark.parametrize("package", ["h5py", "torch"])
def test_the_command_survives_a_package_that_cannot_be_imported(package: str, cache_dir: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from align_cache.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "doctor", "--cache-dir", str(cache_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert re.search(
        rf"^broken +(the|this) \w+ cannot be looked at: import of {package} halted", done.stdout, re.M
    )
    assert "→ where a package is named: pip install --force-reinstall PACKAGE" in done.stdout


def test_looking_around_loads_no_model_library_and_nothing_before_it_looks(cache_dir: Path) -> None:
    assert not loaded_after("from align_cache import doctor") & {"torch", "numpy", "h5py", "pydantic"}
    look = f"doctor(cache_dir=Path({str(cache_dir)!r}))"
    loaded = loaded_after(f"from pathlib import Path; from align_cache import doctor; {look}")
    assert "torch" in loaded
    assert not loaded & {"torchvision", "transformers", "datasets", "timm", "sklearn", "matplotlib"}
