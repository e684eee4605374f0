"""The command line: exit codes, one helpful line, JSON, and the commands of README and docs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from align_cache.cli import app, main
from tests.unit.stored import paired_sets

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fit --adaptr mlp", "No such option: --adaptr"),
        ("fit --adapter mpl", "'mpl' is not one of 'linear', 'mlp'"),
        ("fit --set optim.lrr=3", "optim.lrr is not a setting (did you mean optim.lr?)"),
        ("fit --set optim.lr", "expected KEY=VALUE"),
        ("fit --epochs 0", "optim.epochs = 0: input should be greater than or equal to 1"),
        ("fit --resume latest --lr 1", "--resume continues with the run's own settings"),
        ("eval --metric mutual_nn", "metrics = 'mutual_nn': input should be 'all', 'mutual_knn'"),
        ("eval --permutations -1", "permutations = -1: input should be greater than or equal to 0"),
        ("extract --dataset shapes --encoder resnet81", "there is no encoder 'resnet81'"),
        ("extract --dataset shape --encoder resnet18", "there is no dataset 'shape'"),
        ("extract --encoder resnet18", "dataset is required"),
        ("extract --dataset shapes --weights dinov3=random", "weights are given for dinov3"),
        (
            "extract --dataset shapes --precision fp8",
            "precision = 'fp8': input should be 'fp32', 'bf16' or 'fp16'",
        ),
        ("extrct", "No such command 'extrct'"),
    ],
)
def test_a_mistake_gets_one_helpful_line_and_exit_2(
    line: str, said: str, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*line.split(), *(["--cache-dir", str(cache_dir)] if line != "extrct" else [])]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) <= 2, "one line, and one for the way out"


def test_a_missing_feature_set_names_the_command_that_makes_it(
    cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--cache-dir", str(cache_dir)]) == 1
    assert "align-cache extract" in capsys.readouterr().err


def test_a_name_that_is_not_there_is_said_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    lines = (
        *("fit --config none.toml", "eval", "export --to npz", "search dogs", "embed a.png"),
        *("search none.png", "zero-shot a.png --classes dog,cat", "zero-shot none --classes dog,cat"),
    )
    program = (
        "import sys; from align_cache.cli import main; "
        f"print([main(line.split()) for line in {lines}], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[2, 1, 1, 1, 1, 1, 1, 1] False"


@pytest.mark.parametrize(
    "command",
    [
        *("extract", "fit", "eval", "report", "demo", "compare", "search", "embed", "zero-shot"),
        *("import", "cache", "plot", "runs"),
    ],
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage: " in capsys.readouterr().out


def test_debug_shows_the_traceback_wherever_it_stands(cache_dir: Path) -> None:
    from align_cache.errors import RunError

    with pytest.raises(RunError):
        main(["eval", "--debug", "--cache-dir", str(cache_dir)])


def test_a_whole_small_pipeline_from_the_command_line(
    cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """extract, fit, eval and report on sixty drawn scenes; every result also as JSON on stdout."""
    at = ["--cache-dir", str(cache_dir), "--json"]
    extract = ["extract", "--dataset", "shapes", "--set", "options.count=60", "--weights", "random"]
    extract += [part for name in ("small-cnn", "small-vit", "small-text") for part in ("--encoder", name)]
    assert main([*extract, *at]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [(row["status"], row["rows"]) for row in made] == [("extracted", 60)] * 2 + [("extracted", 300)]
    assert all(row["untrained"] for row in made)
    assert main([*extract, *at]) == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"already there"}

    fit = ["fit", "--dataset", "shapes", "--image-encoder", "small-cnn", "--text-encoder", "small-text",
           "--reference", "small-vit", "--epochs", "2", "--set", "optim.warmup_epochs=0",
           "--set", "evaluation.k=2", "--set", "adapter.mlp_hidden_dims=[8]", "--no-figures"]  # fmt: skip
    assert main([*fit, *at]) == 0
    run = json.loads(capsys.readouterr().out)
    assert run["status"] == "finished"
    assert run["untrained"] == ["small-cnn", "small-text", "small-vit"]

    assert main(["eval", run["id"], "--k", "2", *at]) == 0
    assert json.loads(capsys.readouterr().out)["untrained"] == run["untrained"]
    asked = ["--metric", "cka", "--metric", "lcs_knn", "--permutations", "3"]
    assert main(["eval", "--k", "2", *asked, "--cache-dir", str(cache_dir)]) == 0
    table = capsys.readouterr().out
    assert "UNTRAINED" in table
    assert "N = 6 images" in table
    assert "LCS k-NN" in table
    assert "3 shuffles" in table

    assert main(["report", *at]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"])
    assert page.read_text().lower().startswith("<!doctype html>")

    assert main(["cache", "ls", *at]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(["cache", "verify", *at]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["runs", "ls", *at]) == 0
    assert [entry["id"] for entry in json.loads(capsys.readouterr().out)] == [run["id"]]
    assert main(["cache", "rm", "shapes/small-cnn", "--yes", *at]) == 0
    capsys.readouterr()
    assert main(["cache", "ls", *at]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_cache_verify_finds_a_flipped_bit_and_exits_1(
    cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _, _ = paired_sets(cache_dir)
    shard = image.folder / "shard-00000.h5"
    del image
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    assert main(["cache", "verify", "--cache-dir", str(cache_dir)]) == 1
    assert "1 damaged" in capsys.readouterr().out


def test_info_shows_what_differs_between_sets_of_one_encoder(
    cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        line = f"extract --dataset shapes --set options.count=8 --encoder small-cnn --weights random:{seed}"
        assert main([*line.split(), "--cache-dir", str(cache_dir)]) == 0
    capsys.readouterr()
    assert main(["cache", "info", "shapes/small-cnn", "--cache-dir", str(cache_dir)]) == 0
    out = capsys.readouterr().out
    last = out.strip().splitlines()[-1]
    one_set = r"'random:\d' in shapes/small-cnn@\w{8}"
    assert re.fullmatch(rf"encoder\.weights: {one_set}, {one_set}", last), last


def test_sigterm_ends_with_143_and_releases_the_set(cache_dir: Path) -> None:
    line = "extract --dataset shapes --encoder small-cnn --weights random --set shard_rows=200"
    options = ["--set", "options.count=5000", "--cache-dir", str(cache_dir)]
    command = [sys.executable, "-m", "align_cache", *line.split(), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(cache_dir.glob("features/*/*/shard-00001.h5")):
        pass
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "the same command goes on from there" in err
    assert not list(cache_dir.glob("features/*/*/.*.tmp"))


def documented_commands() -> list[tuple[str, str]]:
    """Every command line in a block of the README and the docs, and every one with options in a sentence."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        typed = [block for written, block in blocks if written != "text"]  # which is what came out
        lines = [line for block in typed for line in block.replace("\\\n", " ").splitlines()]
        lines += [line for line in re.findall(r"`(align-cache [^`]*)`", text) if " -" in line]
        lines = [line.partition("#")[0].strip().removeprefix("$ ") for line in lines]
        commands = [re.search(r"(?:^|/)align-cache +(.+)", line) for line in lines]
        found += [(str(page.relative_to(ROOT)), command[1]) for command in commands if command]
    return found


@pytest.mark.parametrize(("page", "line"), documented_commands())
def test_every_documented_command_is_understood(page: str, line: str) -> None:
    """Options, their values and what is required are checked by the parser itself; nothing is run."""
    command: Any = typer.main.get_command(app)
    words = [word for word in shlex.split(line) if word != "--help"]
    while hasattr(command, "commands"):
        assert words, f"{page}: {line} names no command"
        assert words[0] in command.commands, f"{page}: there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    command.make_context(line, words)
