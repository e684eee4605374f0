"""A training run that is interrupted for real, a disk that fills under its checkpoint, a second process."""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from align_cache import files
from align_cache.adapters.checkpoint import Weights, load_adapters, load_trainer, save_checkpoint
from align_cache.cli import main
from align_cache.config import to_toml
from align_cache.errors import BusyError
from align_cache.lock import holding
from align_cache.results import Run, find_run
from align_cache.training.fitting import fit, resume_fit
from tests.unit.stored import paired_sets
from tests.unit.test_fit import toy, without_durations

EPOCHS = 60


@pytest.mark.parametrize(
    ("sent", "exit_code", "status"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted"),
        (signal.SIGKILL, -signal.SIGKILL, "running"),
    ],
)
def test_an_interrupted_fit_resumes_to_the_result_of_an_uninterrupted_one(
    sent: signal.Signals, exit_code: int, status: str, cache_dir: Path
) -> None:
    paired_sets(cache_dir)
    config = toy(optim__epochs=EPOCHS, log__viz_frequency=0)
    file = cache_dir / "toy.toml"
    file.write_text(to_toml(config))
    command = ["fit", "--config", str(file), "--cache-dir", str(cache_dir), "--no-figures"]
    process = subprocess.Popen(
        [sys.executable, "-m", "align_cache", *command],
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(cache_dir.glob("runs/*/checkpoints/adapters-0003.*")):
        time.sleep(0.002)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == exit_code, err
    assert ("align-cache fit --resume latest" in err) == (sent != signal.SIGKILL)
    stopped = find_run(cache_dir=cache_dir)
    assert stopped.info()["status"] == status
    assert load_adapters(stopped.checkpoints, "last")[1] < EPOCHS

    resumed, whole = resume_fit("latest", cache_dir=cache_dir), fit(config, cache_dir=cache_dir)
    assert resumed.folder == stopped.folder
    assert resumed.info()["status"] == "finished"
    assert without_durations(resumed.records()) == without_durations(whole.records())
    assert state(resumed) == state(whole)


def state(run: Run) -> list[object]:
    """Epoch and weights of both checkpoints, comparable."""
    found: list[object] = []
    for which in ("best", "last"):
        weights, epoch = load_adapters(run.checkpoints, which)
        found += [epoch, {name: tensor.tolist() for name, tensor in weights.items()}]
    return found


def save(folder: Path, epoch: int) -> None:
    value = float(epoch)
    weights = Weights(epoch, {"w": torch.tensor([value])})
    save_checkpoint(folder, last=weights, best=weights, trainer={"best": value}, metadata={})


@pytest.mark.parametrize("step", range(6))
def test_a_disk_that_fills_while_a_checkpoint_is_saved_leaves_one_that_can_be_read(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every flush fails once: of the weights, of the state, of the index, and of the folder after each."""
    save(tmp_path, 1)
    flush, count = files.fsync, 0

    def full(path: Path) -> None:
        nonlocal count
        count += 1
        if count > step:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        flush(path)

    with monkeypatch.context() as patched:
        patched.setattr(files, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 2)
    weights, epoch = load_adapters(tmp_path, "last")
    trainer, trainer_epoch = load_trainer(tmp_path)
    assert epoch == trainer_epoch == weights["w"].item() == trainer["best"]
    assert epoch == (1 if step < 5 else 2), (
        "the index is what counts, and it is renamed before the last flush"
    )
    assert load_adapters(tmp_path, "best")[1] == epoch
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*"))
    save(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapters-0002.safetensors", "index.json", "trainer-0002.pt"
    ]  # fmt: skip


def test_a_run_that_is_being_trained_is_not_resumed_beside_it(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    run.update(status="running")
    with (
        holding(run.folder / "training"),
        pytest.raises(BusyError, match=r"training is held by another process \(pid \d+ on "),
    ):
        resume_fit(run.id, cache_dir=cache_dir)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--device", "cuda", "--cache-dir", str(cache_dir)]) == 2
    assert "device cuda was asked for" in capsys.readouterr().err
