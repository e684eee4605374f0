"""An extraction that is interrupted or runs out of room, for real: one line, and the same bytes again."""

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.crash.test_extract_kill import command, n_shards
from tests.unit.stored import published_bytes


def finish(cache_dir: Path) -> dict[str, bytes]:
    subprocess.run(command(cache_dir), check=True, capture_output=True)
    return published_bytes(cache_dir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of an extraction that nothing interrupted."""
    return finish(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_extraction_says_how_to_go_on_and_goes_on_to_the_same_bytes(
    sent: signal.Signals, code: int, said: str, cache_dir: Path, whole: dict[str, bytes]
) -> None:
    process = subprocess.Popen(
        command(cache_dir),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and n_shards(cache_dir) == 0:
        time.sleep(0.002)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.splitlines()[-2:] == [
        f"error: {said}", "  what is finished is kept; the same command goes on from there"
    ]  # fmt: skip
    assert "Traceback" not in err
    assert not list(cache_dir.glob("features/*/*/.*")), "a temporary file stayed"
    with pytest.raises(ProcessLookupError):  # of its group, nobody is left
        os.killpg(process.pid, 0)
    published = published_bytes(cache_dir)
    assert published
    assert all(whole[name] == data for name, data in published.items())
    assert finish(cache_dir) == whole


def test_a_limit_on_the_size_of_files_is_one_line_and_the_work_resumes(
    cache_dir: Path, whole: dict[str, bytes]
) -> None:
    """The system refuses to write on, as on a full disk: here in the shards of images, the larger ones."""
    text = {name: data for name, data in whole.items() if "small-text" in name}
    largest = max(map(len, text.values()))
    assert largest < max(map(len, whole.values()))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    texts_alone = [word for word in command(cache_dir) if word != "small-cnn"]
    texts_alone.remove("--encoder")
    subprocess.run(texts_alone, check=True, capture_output=True, preexec_fn=limit)
    done = subprocess.run(command(cache_dir), capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 1
    first, hint = done.stderr.splitlines()[-2:]
    assert first.startswith("error: cannot write below ")
    assert first.endswith("File too large")
    assert "the same command then resumes" in hint
    assert not list(cache_dir.glob("features/*/*/.*"))
    assert published_bytes(cache_dir) == text, "what was finished stays"
    assert finish(cache_dir) == whole
