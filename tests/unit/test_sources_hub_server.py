"""The hub's real client against a small server that speaks as the hub does: a listing, then the files."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"
NAME = "plain_text/train-00000-of-00001.parquet"
PROGRAM = """
import sys
from align_cache.sources import open_source
source = open_source("cifar10", revision=sys.argv[1])
print(source.revision, [sample.label for sample in source.images], source.read_image(1))
"""


class _Hub(http.server.ThreadingHTTPServer):
    """One dataset repository, ``uoft-cs/cifar10``; its first listing fails with 503."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.asked: Counter[str] = Counter()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked[f"{self.command} {path}"] += 1
        if path == "/api/datasets/uoft-cs/cifar10/revision/main":
            first = self.server.asked[f"{self.command} {path}"] == 1
            self._answer(503 if first else 200, json.dumps({"id": "uoft-cs/cifar10", "sha": SHA}).encode())
        elif path == f"/api/datasets/uoft-cs/cifar10/tree/{SHA}":
            files = [{"type": "file", "path": name, "size": len(self.server.content), "oid": "0" * 40}
                     for name in (NAME, "script.py")]  # fmt: skip
            self._answer(200, json.dumps(files).encode())
        elif path == f"/datasets/uoft-cs/cifar10/resolve/{SHA}/{NAME}":
            self._answer(200, self.server.content)
        else:
            self._answer(404, b"{}", X_Error_Code="RevisionNotFound")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Hub]:
    images = [{"bytes": b"PNG %d" % i, "path": None} for i in range(2)]
    pq.write_table(pa.table({"img": images, "label": [3, 9]}), tmp_path / "x.parquet")
    with _Hub((tmp_path / "x.parquet").read_bytes()) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


def run(
    home: Path, endpoint: str, revision: str = "main", **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = {**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "*", **environment}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, revision], env=environment, capture_output=True, text=True
    )


def test_a_dataset_is_fetched_once_at_one_commit_and_then_read_without_a_network(
    server: _Hub, tmp_path: Path
) -> None:
    endpoint = f"http://127.0.0.1:{server.server_port}"
    expected = f"{SHA} [3, 9] b'PNG 1'\n"
    first = run(tmp_path, endpoint)
    assert first.stdout == expected, first.stderr
    assert server.asked["GET /api/datasets/uoft-cs/cifar10/revision/main"] == 2, "one refusal, one answer"
    assert not any("script.py" in request for request in server.asked), "only the parquet files are wanted"

    server.asked.clear()
    assert run(tmp_path, endpoint).stdout == expected
    assert not any("resolve" in request for request in server.asked), "nothing is fetched twice"

    server.asked.clear()
    offline = run(tmp_path, endpoint, HF_HUB_OFFLINE="1")
    assert offline.stdout == expected
    assert not server.asked
    assert "no network, using the copy fetched before" in offline.stderr


def test_a_revision_that_the_hub_does_not_have_is_refused_at_once(server: _Hub, tmp_path: Path) -> None:
    done = run(tmp_path, f"http://127.0.0.1:{server.server_port}", revision="v9")
    assert "SourceError: uoft-cs/cifar10 has no revision 'v9'" in done.stderr
    assert server.asked["GET /api/datasets/uoft-cs/cifar10/revision/v9"] == 1
