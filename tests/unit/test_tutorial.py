"""The pages that are followed with the hands on the keyboard: everything in them runs, in order."""

import csv
import http.client
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from align_cache.cli import main
from tests.unit.followed import follow

WEIGHTS = "mobilenet_v2-imagenet1k-dequantized.safetensors"


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, in which the cache is where it is by default."""
    monkeypatch.delenv("ALIGN_CACHE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def collection(somewhere: Path, real_data: Path) -> None:
    """What the tutorial begins with, but for the number of its pictures: 60 instead of 1,800."""
    flickr, images = real_data / "flickr8k", Path("my-pictures/images")
    images.mkdir(parents=True)
    names = sorted(path.name for path in (flickr / "Images").iterdir())[:60]
    for name in names:
        shutil.copy(flickr / "Images" / name, images)
    with (flickr / "captions.txt").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    with Path("my-pictures/captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows[0], *(row for row in rows if row[0] in names)])
    shutil.copy(real_data / WEIGHTS, "mobilenet_v2.safetensors")


def look_at_the_page() -> None:
    """`align-cache view` as a user has it: it says its address, answers there, and Ctrl-C closes it."""
    command = [sys.executable, "-m", "align_cache", "view", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection.request("GET", address.path or "/")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


@pytest.mark.usefixtures("collection")
def test_the_tutorial_can_be_followed_from_its_first_picture_to_its_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The environment is there already, and the demo has a test of its own.
    before = ("python3 -m venv", ". .venv", "pip install", "align-cache demo")
    done = follow("docs/tutorial.md", passed_over=before, instead={"align-cache view": look_at_the_page})
    verbs = {line.split()[1] for line in done}
    assert verbs >= {"doctor", "extract", "fit", "eval", "report", "search", "zero-shot", "export", "view"}
    assert "two dogs in the snow" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_of_the_tutorial_leaves_a_report() -> None:
    assert main(["demo"]) == 0
    assert list(Path("cache/runs").glob("*/report.html"))


def test_the_examples_of_bringing_ones_own_run_one_after_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = follow("docs/your-own.md")
    assert [line.split()[1] for line in done][:4] == ["extract", "fit", "search", "import"]
    found = re.search(r"(\d+) of 160 pictures find what was said of them", capsys.readouterr().out)
    assert found
    assert int(found[1]) > 100, "the page says 133"
