"""The hub seen through a stand-in for its client: there is no network in these tests."""

import errno
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from align_cache.errors import OfflineError, SourceError
from align_cache.sources import hub

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A hub that can be reached; gives the list of pauses made instead of sleeping."""
    pauses: list[float] = []
    monkeypatch.setattr(hub, "is_reachable", lambda url: True)
    monkeypatch.setattr(hub.time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Replace the hub's client by a script of results; gives the list of calls it gets."""

    def install(*script: Path | Exception) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []
        steps: Iterator[Path | Exception] = iter(script)

        def snapshot_download(repo_id: str, **arguments: Any) -> str:
            calls.append({"repo_id": repo_id, **arguments})
            step = next(steps)
            if isinstance(step, Exception):
                raise step
            return str(step)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        return calls

    return install


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "snapshots" / SHA
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    return folder


def test_a_snapshot_is_its_folder_and_commit(online, client, snapshot) -> None:
    calls = client(snapshot)
    assert hub.fetch_snapshot("a/b", repo_type="dataset", revision="main") == (snapshot, SHA)
    assert [(call["repo_id"], call["revision"], call["local_files_only"]) for call in calls] == [
        ("a/b", "main", False)
    ]


def test_a_broken_connection_is_tried_again_with_growing_pauses(online, client, snapshot) -> None:
    client(ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError("slow"), snapshot)
    assert hub.fetch_snapshot("a/b", repo_type="dataset")[1] == SHA
    assert online == [0.0, 1.0, 2.0]


def test_a_connection_that_never_holds_ends_with_the_command_that_fetches(online, client) -> None:
    client(*[ConnectionResetError(errno.ECONNRESET, "reset by peer")] * 5)
    with pytest.raises(OfflineError, match="reset by peer") as caught:
        hub.fetch_snapshot("a/b", repo_type="dataset", revision="v1", allow_patterns=["*.parquet"])
    assert "hf download a/b --repo-type dataset --revision v1 --include '*.parquet'" in str(caught.value)
    assert "--data-dir" in str(caught.value)
    assert online == [0.0, 1.0, 2.0, 4.0, 8.0]


def test_a_certificate_that_does_not_fit_is_not_tried_again(online, client) -> None:
    error = RuntimeError("the client's own error")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed")
    calls = client(error)
    with pytest.raises(OfflineError):
        hub.fetch_snapshot("a/b", repo_type="model")
    assert len(calls) == 1


def test_a_full_disk_is_said_at_once_and_not_taken_for_the_network(online, client) -> None:
    calls = client(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(SourceError, match="No space left") as caught:
        hub.fetch_snapshot("a/b", repo_type="dataset")
    assert not isinstance(caught.value, OfflineError)
    assert len(calls) == 1


def test_a_repository_id_that_cannot_exist_is_refused(online) -> None:
    with pytest.raises(SourceError, match="no repository 'a/b/c'"):
        hub.fetch_snapshot("a/b/c", repo_type="dataset")


def test_patterns_that_match_nothing_are_refused(online, client, tmp_path: Path) -> None:
    client(tmp_path / SHA)
    with pytest.raises(SourceError, match=r"no file like \['\*.nothing'\]"):
        hub.fetch_snapshot("a/b", repo_type="dataset", allow_patterns=["*.nothing"])


def test_without_a_network_what_was_fetched_before_is_used_and_said(
    monkeypatch: pytest.MonkeyPatch, client, snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub, "is_reachable", lambda url: False)
    calls = client(snapshot)
    assert hub.fetch_snapshot("a/b", repo_type="dataset") == (snapshot, SHA)
    assert calls[0]["local_files_only"] is True
    assert "no network, using the copy fetched before (0123456789ab)" in caplog.text


def test_the_real_client_finds_a_snapshot_in_its_cache_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = tmp_path / "datasets--a--b"
    (storage / "snapshots" / SHA).mkdir(parents=True)
    (storage / "snapshots" / SHA / "x.parquet").write_bytes(b"PAR1")
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(SHA)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.fetch_snapshot("a/b", repo_type="dataset") == (storage / "snapshots" / SHA, SHA)
    with pytest.raises(OfflineError, match="is not in the local hub cache"):
        hub.fetch_snapshot("a/other", repo_type="dataset")


def test_without_a_network_a_copy_that_lacks_what_is_needed_counts_as_not_fetched(
    monkeypatch: pytest.MonkeyPatch, client, snapshot
) -> None:
    monkeypatch.setattr(hub, "is_reachable", lambda url: False)
    client(snapshot, snapshot)
    patterns = ["*.parquet", "*.safetensors"]
    assert hub.fetch_snapshot("a/b", repo_type="model", allow_patterns=patterns)[0] == snapshot
    with pytest.raises(OfflineError, match="is not in the local hub cache") as caught:
        hub.fetch_snapshot("a/b", repo_type="model", allow_patterns=patterns, needed=["*.safetensors"])
    assert "--include '*.safetensors'" in str(caught.value)


def test_other_files_of_a_snapshot_do_not_stand_for_those_that_were_asked_for(
    online, client, snapshot
) -> None:
    client(snapshot)
    with pytest.raises(SourceError, match="no file like"):
        hub.fetch_snapshot("a/b", repo_type="model", allow_patterns=["model.safetensors"])


def test_offline_ends_a_process_with_the_command_and_no_attempt_to_connect(tmp_path: Path) -> None:
    program = """
import socket
def refuse(*_, **__): raise AssertionError("a connection was attempted")
socket.create_connection = socket.getaddrinfo = refuse
from align_cache.sources import open_source
open_source("flickr30k")
"""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "OfflineError" in done.stderr
    assert "hf download umaru97/flickr30k_train_val_test --repo-type dataset" in done.stderr


def test_a_name_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer, gave_up = threading.Event(), threading.Event()

    def hang(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address[0])
        answer.wait(30)
        gave_up.set()
        raise OSError("no answer")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_PROBE_S", 0.02)
    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setattr(hub, "getproxies", dict)
    assert not hub.is_reachable("https://hub.example")
    assert not gave_up.is_set(), "the bound has to end the wait, not the name server"
    answer.set()
    assert asked == ["hub.example"]


def test_a_listening_server_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert hub.is_reachable(f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("proxy", ["http://proxy.example:3128", "proxy.example:3128"])
def test_behind_a_proxy_it_is_the_proxy_that_has_to_answer(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": proxy})
    monkeypatch.setattr(hub, "proxy_bypass", lambda host: False)
    assert hub._first_hop("https://hub.example") == ("proxy.example", 3128)
    monkeypatch.setattr(hub, "proxy_bypass", lambda host: True)
    assert hub._first_hop("https://hub.example") == ("hub.example", 443)
