"""The page that view opens: what each address answers, what is refused, what is said of what is missing."""

import http.client
import io
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image

from align_cache.cli import main
from align_cache.errors import RunError, UsageError
from align_cache.judging.evaluation import evaluate
from align_cache.reporting.tsne import COLOURS
from align_cache.results import Run
from align_cache.settings import EvalConfig
from align_cache.sources import open_source
from align_cache.training.fitting import fit
from align_cache.use.embedder import Embedder
from align_cache.use.known_encoder import KnownEncoder
from align_cache.viewing import layouts, open_view
from align_cache.viewing.kept import RUNS, Kept
from align_cache.viewing.layouts import place
from align_cache.viewing.matrices import matrices
from align_cache.viewing.query import LONGEST, Query, Refusal
from align_cache.viewing.routes import HITS
from align_cache.viewing.runs import curves, runs_table
from align_cache.viewing.server import PageServer, _Handler
from align_cache.viewing.shown_pairs import ShownPairs
from tests.unit.stored import paired_sets, unit_rows
from tests.unit.test_fit import toy
from tests.unit.viewed import SCENES, drawn_run, serving


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A cache with an evaluated run on drawn scenes."""
    cache_dir = tmp_path_factory.mktemp("cache")
    return cache_dir, drawn_run(cache_dir)


@pytest.fixture(scope="module")
def page(drawn: tuple[Path, Run]) -> Iterator[PageServer]:
    """Its page, answering."""
    with serving("latest", drawn[0]) as server:
        yield server


def request(
    server: PageServer, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, **query: Any
) -> tuple[int, http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.request(method, path + (f"?{urlencode(query)}" if query else ""), headers=headers or {})
        response = connection.getresponse()
        return response.status, response, response.read()
    finally:
        connection.close()


def answered(server: PageServer, question: str, **query: Any) -> Any:
    status, response, body = request(server, f"/api/{question}", **query)
    assert (status, response.getheader("Content-Type")) == (200, "application/json")
    return json.loads(body)


# --- what is shown ------------------------------------------------------------------------------------------


def test_the_page_loads_only_what_it_is_served_itself(page: PageServer) -> None:
    status, response, body = request(page, "/")
    assert (status, response.getheader("Content-Type")) == (200, "text/html; charset=utf-8")
    html = body.decode()
    assert "<script>" not in html, "the policy would refuse it"
    assert "style=" not in html, "likewise"
    loaded = set(re.findall(r'(?:src|href)="/([^"]+)"', html))
    assert loaded == {"style.css", "main.js", "icon.svg"}
    for name in [*loaded]:
        assert request(page, f"/{name}")[0] == 200


def test_every_file_of_the_page_is_served_and_lies_in_the_package(page: PageServer) -> None:
    from importlib import resources

    lying = {entry.name for entry in (resources.files("align_cache.viewing") / "assets").iterdir()}
    for name in lying - {"page.html"}:
        status, _, content = request(page, f"/{name}")
        assert status == 200, name
        assert set(re.findall(r'from "\./([^"]+)"', content.decode())) <= lying, name
        assert not re.findall(r"(?:https?:)?//\w+\.(?!w3\.org/2000/svg)", content.decode()), name


def test_the_colours_are_those_of_the_figures(page: PageServer) -> None:
    _, _, css = request(page, "/style.css")
    assert css.startswith(
        b":root{--image:" + COLOURS["image"].encode() + b";--text:" + COLOURS["text"].encode()
    )


def test_the_table_has_the_runs_newest_first_and_says_which_is_shown(
    page: PageServer, drawn: tuple[Path, Run]
) -> None:
    table = answered(page, "runs")
    assert (table["first"], table["total"]) == (drawn[1].id, 1)
    (row,) = table["runs"]
    assert row["cells"][0] == "finished"
    assert row["cells"][-1] == "shapes: small-cnn*, small-text* → none"
    assert not row["running"]


def test_a_run_that_cannot_be_read_stands_in_the_table_with_the_reason(cache_dir: Path) -> None:
    folders = [cache_dir / "runs" / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
        Run(folder).update(id=folder.name, status="running")
    (folders[0] / "run.json").write_text("{")
    newest, oldest = runs_table([Run(folder) for folder in folders])["runs"]
    assert (newest["id"], newest["running"]) == ("two", True)
    assert "is not JSON" in oldest["error"]


def test_curves_are_what_the_run_logged(page: PageServer, drawn: tuple[Path, Run]) -> None:
    run = drawn[1]
    found = answered(page, "curves", run=run.id)
    logged = [record for record in run.records() if record["kind"] == "epoch"]
    assert found["curves"]["val_loss"]["points"] == [[each["epoch"], each["val"]["loss"]] for each in logged]
    trained = found["curves"]["train_loss"]["points"]
    assert [epoch for epoch, _ in trained] == [each["epoch"] for each in logged if "train" in each]
    recalls = found["curves"]["r5_text_to_image"]
    assert recalls["title"] == "Recall at 5, text → image"
    assert recalls["points"][-1] == [logged[-1]["epoch"], logged[-1]["retrieval"]["text_to_image"]["r5"]]
    assert found["best_epoch"] == run.info()["best_epoch"]
    assert "UNTRAINED" in found["warnings"][0]


def test_a_run_that_is_still_going_shows_as_far_as_it_came(tmp_path: Path) -> None:
    run = Run(tmp_path / "going")
    run.folder.mkdir()
    run.update(id="going", status="running", untrained=[])
    assert all(not curve["points"] for curve in curves(run)["curves"].values())
    found = matrices(run)
    assert found["metrics"] == []
    assert any("is running" in line for line in found["warnings"])
    run.append_record({"kind": "epoch", "epoch": 0, "val": {"loss": 2.0}, "retrieval": None})
    assert curves(run)["curves"]["val_loss"]["points"] == [(0, 2.0)]


def test_the_matrices_are_those_of_the_latest_evaluation(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    before = matrices(run)
    assert not before["evaluated"]
    assert {metric["title"] for metric in before["metrics"]} == {"Mutual k-NN", "CKA"}
    assert before["metrics"][0]["spaces"]["features"] is None, "training measures embeddings alone"
    record = evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)
    after = matrices(run)
    assert after["evaluated"]
    knn = after["metrics"][0]
    for space in ("features", "embeddings"):
        for pair, cell in knn["spaces"][space].items():
            assert cell["value"] == record[space]["alignment"]["mutual_knn"][pair]
            assert cell["interval"] == record[space]["intervals"].get("mutual_knn", {}).get(pair)
    assert set(knn["spaces"]["embeddings"]) == set(record["embeddings"]["alignment"]["mutual_knn"])
    assert "k = 3" in after["where"]


def test_the_map_has_each_image_of_the_split_with_its_caption(
    page: PageServer, drawn: tuple[Path, Run]
) -> None:
    found = answered(page, "map", run=drawn[1].id, layout="pca")
    n = found["n"]
    assert found["n_split"] == n == len(set(found["ids"])) == len(found["captions"]) == len(found["cosines"])
    scenes = open_source("shapes", options={"count": SCENES, "image_size": 32})
    first = {}
    for caption in scenes.captions:
        first.setdefault(caption.group_id, caption.text)
    assert found["captions"] == [first[name] for name in found["ids"]]
    assert {image.sample_id for image in scenes.images if image.split == found["split"]} == set(found["ids"])
    points = np.array([found["image"], found["text"]]).reshape(2 * n, 2)
    assert np.abs(points).max() == pytest.approx(1)
    assert (found["pictures"], found["pictures_note"]) == (True, None)
    assert found["untrained"] == ["small-cnn", "small-text"]


def test_similar_and_search_rank_as_the_model_does(page: PageServer, drawn: tuple[Path, Run]) -> None:
    from align_cache.use.model import AlignedModel

    cache_dir, run = drawn
    ids = answered(page, "map", run=run.id, layout="pca")["ids"]
    scenes = open_source("shapes", options={"count": SCENES, "image_size": 32})
    row_of = {image.sample_id: row for row, image in enumerate(scenes.images)}
    model = AlignedModel.from_run(run, cache_dir=cache_dir, device="cpu")
    images = model.encode_image([np.asarray(scenes.read_image(row_of[name])) for name in ids])
    words = "a small red circle"
    cosines = images @ model.encode_text([words])[0]
    found = answered(page, "search", run=run.id, words=words, k=5)
    assert [hit["cosine"] for hit in found["image"]] == pytest.approx(np.sort(cosines)[::-1][:5], abs=2e-3)
    assert found["image"][0]["image_id"] == ids[found["image"][0]["row"]]
    assert any("untrained" in note for note in found["notes"])

    similar = answered(page, "similar", run=run.id, row=3, modality="image", k=4)
    others = np.delete(images @ images[3], 3)
    assert similar["asked"]["image_id"] == ids[3]
    assert 3 not in [hit["row"] for hit in similar["image"]], "not similar to itself"
    assert [hit["cosine"] for hit in similar["image"]] == pytest.approx(np.sort(others)[::-1][:4], abs=2e-3)
    assert len(similar["text"]) == 4


def test_a_thumbnail_is_the_picture_of_that_id(page: PageServer, drawn: tuple[Path, Run]) -> None:
    status, response, content = request(page, "/thumbnail", run=drawn[1].id, image="scene-000007")
    assert (status, response.getheader("Content-Type")) == (200, "image/png")
    scene = open_source("shapes", options={"count": SCENES, "image_size": 32}).read_image(7)
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), scene)


# --- layouts and neighbours ---------------------------------------------------------------------------------


def toy_pairs(n: int, dim: int = 6) -> ShownPairs:
    random = np.random.default_rng(n)
    ids = [f"im{i}" for i in range(n)]
    return ShownPairs("toy", "test", n, ids, ids, unit_rows(random, n, dim), unit_rows(random, n, dim))


@pytest.mark.parametrize("n", [3, 17])
def test_the_plane_is_that_of_the_singular_vectors_and_fills_the_box(n: int) -> None:
    shown = toy_pairs(n)
    placed = place(shown, "pca")
    points = np.concatenate([shown.image, shown.text]).astype(np.float64)
    left, weights, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    plane = np.concatenate([placed.image, placed.text])
    expected = left[:, :2] * weights[:2]
    plane, expected = plane - plane.mean(axis=0), expected / np.ptp(expected, axis=0).max() * 2
    assert np.abs(plane) == pytest.approx(np.abs(expected), abs=1e-9), "an axis may be mirrored"
    assert np.ptp(np.concatenate([placed.image, placed.text]), axis=0).max() == pytest.approx(2)
    share = weights[0] ** 2 / (weights**2).sum()
    assert f"{share:.1%} and" in placed.note


def test_a_tsne_takes_some_of_many_pairs_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "TSNE_PAIRS", 12)
    placed, again = place(toy_pairs(40), "tsne"), place(toy_pairs(40), "tsne")
    np.testing.assert_array_equal(placed.rows, again.rows)
    np.testing.assert_array_equal(placed.image, again.image)
    assert (len(placed.rows), np.unique(placed.rows).size, placed.image.shape) == (12, 12, (12, 2))
    assert "12 pairs drawn at random" in placed.note


def test_points_that_are_all_one_lie_in_the_middle() -> None:
    same = np.tile(np.float32([[1, 0, 0]]), (5, 1))
    placed = place(ShownPairs("toy", "test", 5, list("abcde"), list("abcde"), same, same), "pca")
    assert np.isfinite(placed.image).all()
    assert np.abs(placed.image).max() == 0


def test_of_equally_near_rows_the_earlier_comes_first_and_the_asked_one_is_left_out() -> None:
    rows = np.float32([[0, 1], [1, 0], [1, 0], [1, 0]])
    shown = ShownPairs("toy", "test", 4, list("abcd"), list("abcd"), rows, rows)
    assert shown.nearest(rows[1], "image", k=2, leave_out=1) == [(2, 1.0), (3, 1.0)]
    assert shown.nearest(rows[1], "text", k=9) == [(1, 1.0), (2, 1.0), (3, 1.0), (0, 0.0)]


def test_only_so_many_pairs_are_drawn_as_were_asked_for(drawn: tuple[Path, Run]) -> None:
    with serving("latest", drawn[0], pairs=4, split="train") as server:
        found = answered(server, "map", run=drawn[1].id, layout="pca")
    assert (found["n"], found["split"]) == (4, "train")
    assert found["n_split"] > 4
    with pytest.raises(UsageError, match="at least 3"):
        open_view(cache_dir=drawn[0], pairs=2)


def test_a_new_checkpoint_is_a_new_question_and_old_answers_make_room(tmp_path: Path) -> None:
    asked: list[str] = []
    kept = Kept(lambda run: asked.append(run.id) or len(asked))  # type: ignore[func-returns-value]
    runs = [Run(tmp_path / str(number)) for number in range(RUNS + 1)]
    assert [kept(runs[0]), kept(runs[0])] == [1, 1]
    runs[0].checkpoints.mkdir(parents=True)
    assert kept(runs[0]) == 2
    for run in runs[1:]:
        kept(run)
    assert kept(runs[1]) == 3, "among the last"
    kept(runs[0])
    assert len(asked) == RUNS + 3


def test_the_runs_are_looked_through_for_a_new_name_alone(
    drawn: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_view(cache_dir=drawn[0], device="cpu") as server:
        viewer, looked = server.viewer, []
        runs = viewer._runs()
        monkeypatch.setattr(viewer, "_runs", lambda: looked.append(1) or list(runs))
        assert [viewer.run(drawn[1].id) for _ in range(3)] == [drawn[1]] * 3
        assert len(looked) == 1
        assert viewer.run("later") is None
        runs.append(Run(drawn[0] / "later"))
        assert viewer.run("later") == runs[-1]


def test_a_new_checkpoint_has_the_same_pictures(tmp_path: Path) -> None:
    asked: list[str] = []
    kept = Kept(lambda run: asked.append(run.id), of_checkpoint=False)
    run = Run(tmp_path / "run")
    kept(run)
    run.checkpoints.mkdir(parents=True)
    kept(run)
    assert asked == ["run"]


def test_searches_at_once_load_the_text_encoder_once(
    drawn: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = [], KnownEncoder.load

    def counted(known: KnownEncoder, device: torch.device) -> Any:
        loaded.append(known.name)
        time.sleep(0.1)
        return load(known, device)

    # As from Python 3.12 on, where nothing keeps a second thread from computing it too.
    monkeypatch.setattr(Embedder, "_text_model", property(_computed_if_absent))
    monkeypatch.setattr(KnownEncoder, "load", counted)
    with serving("latest", drawn[0]) as server, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(answered, server, "search", run=drawn[1].id, words=f"{n} circles", k=1)
                 for n in range(4)]  # fmt: skip
        assert all(each.result()["image"] for each in asked)
    assert loaded == ["small-text"]


def _computed_if_absent(embedder: Embedder) -> Any:
    if "kept" not in embedder.__dict__:
        made = embedder.text_encoder.load(embedder.device)
        embedder.__dict__["kept"] = made
    return embedder.__dict__["kept"]


# --- what is missing is said --------------------------------------------------------------------------------


def test_of_imported_features_the_map_is_shown_and_search_and_pictures_say_why_not(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    with serving("latest", cache_dir) as server:
        found = answered(server, "map", run=run.id, layout="pca")
        assert found["n"] == 12
        assert found["captions"][0].startswith("im"), "ids where words are not stored"
        assert not found["pictures"]
        assert "does not say how its images were read" in found["pictures_note"]
        assert "imported as text" in answered(server, "searchable", run=run.id)["unavailable"]
        assert "imported as text" in answered(server, "search", run=run.id, words="a", k=1)["unavailable"]
        assert len(answered(server, "similar", run=run.id, row=0, modality="text", k=3)["image"]) == 3
        status, _, body = request(server, "/thumbnail", run=run.id, image=found["ids"][0])
        assert (status, json.loads(body)["error"]) == (404, f"no picture of '{found['ids'][0]}'")


def test_each_part_says_for_itself_what_is_damaged(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    with serving("latest", cache_dir) as server:
        shutil.rmtree(run.checkpoints)
        assert answered(server, "map", run=run.id, layout="pca")["unavailable"]
        assert answered(server, "curves", run=run.id)["curves"]["val_loss"]["points"]
        (run.folder / "records.jsonl").write_text("[]\n")
        assert "no JSON object" in answered(server, "curves", run=run.id)["unavailable"]
        shutil.rmtree(cache_dir / "features")
        gone = answered(server, "map", run=run.id, layout="pca")
        assert gone["unavailable"]
        assert "no JSON object" in answered(server, "runs")["runs"][0]["error"]
        (run.folder / "run.json").write_text("nothing")
        assert "is not JSON" in answered(server, "map", run=run.id, layout="pca")["unavailable"]
        assert "no JSON object" in answered(server, "alignment", run=run.id)["unavailable"]


def test_a_fault_of_ours_is_one_line_and_the_page_goes_on(
    page: PageServer,
    drawn: tuple[Path, Run],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken(run: Run) -> None:
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(page.viewer, "curves", broken)
    status, _, body = request(page, "/api/curves", run=drawn[1].id)
    assert status == 500
    assert json.loads(body) == {"error": "unexpected ZeroDivisionError: this is a fault of align-cache"}
    assert request(page, "/")[0] == 200


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/curves?run=RUN", "/thumbnail?run=RUN&image=none"])
def test_a_page_that_goes_away_before_the_answer_leaves_no_word(
    path: str,
    page: PageServer,
    drawn: tuple[Path, Run],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked, gone, ended = Event(), Event(), Event()
    guard, end = _Handler._guard, page.shutdown_request

    def waits(handler: _Handler) -> None:
        asked.set()
        gone.wait(10)
        guard(handler)

    monkeypatch.setattr(_Handler, "_guard", waits)
    monkeypatch.setattr(page, "shutdown_request", lambda connection: (end(connection), ended.set()))
    with socket.create_connection(("127.0.0.1", page.server_port)) as connection:
        line = f"GET {path.replace('RUN', drawn[1].id)} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(line.encode())
        assert asked.wait(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with RST
    gone.set()
    assert ended.wait(10)
    assert capfd.readouterr().err == ""


def test_what_fails_on_a_connection_is_one_line(
    page: PageServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Handler, "_send", lambda self, found: 1 / 0)
    with pytest.raises(http.client.RemoteDisconnected):
        request(page, "/")
    assert capfd.readouterr().err == "error: ZeroDivisionError: division by zero\n"


# --- who may ask for what -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/api/nothing", "/api/", "/..", "/viewer.py", "/page.html", "/assets/main.js"),
        *("/../server.py", "/%2e%2e/server.py", "/etc/passwd", "//etc/passwd"),
    ],
)
def test_an_address_that_is_not_in_the_table_is_not_found(path: str, page: PageServer) -> None:
    assert request(page, path)[0] == 404


@pytest.mark.parametrize(
    ("question", "query", "status"),
    [
        ("curves", {}, 400),
        ("curves", {"run": " "}, 400),
        ("curves", {"run": "x" * (LONGEST + 1)}, 400),
        ("curves", {"run": "no-such-run"}, 404),
        ("curves", {"run": "../"}, 404),
        ("map", {"run": "RUN"}, 400),
        ("map", {"run": "RUN", "layout": "umap"}, 400),
        ("search", {"run": "RUN", "words": "", "k": 3}, 400),
        ("search", {"run": "RUN", "words": "a", "k": 0}, 400),
        ("search", {"run": "RUN", "words": "a", "k": HITS + 1}, 400),
        ("search", {"run": "RUN", "words": "a", "k": "²"}, 400),
        ("similar", {"run": "RUN", "row": -1, "modality": "image", "k": 3}, 400),
        ("similar", {"run": "RUN", "row": 10**8, "modality": "image", "k": 3}, 404),
        ("similar", {"run": "RUN", "row": 0, "modality": "aligned", "k": 3}, 400),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_refused_by_name(
    question: str, query: dict[str, Any], status: int, page: PageServer, drawn: tuple[Path, Run]
) -> None:
    query = {name: drawn[1].id if value == "RUN" else value for name, value in query.items()}
    found, _, body = request(page, f"/api/{question}", **query)
    assert found == status
    assert json.loads(body)["error"]


def test_a_name_that_stands_twice_and_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(Refusal, match="run: expected it once"):
        Query("run=a&run=b").text("run")
    with pytest.raises(Refusal, match="cannot be read"):
        Query("run=%ff")
    with pytest.raises(Refusal, match="cannot be read"):
        Query("&".join(f"a{number}=1" for number in range(11)))


@pytest.mark.parametrize(
    "name", ["../../run.json", "/etc/passwd", "scene-9999", "scene-000007/../scene-000007", "deep/" * 200]
)
def test_an_id_is_looked_up_and_never_a_path(name: str, page: PageServer, drawn: tuple[Path, Run]) -> None:
    assert request(page, "/thumbnail", run=drawn[1].id, image=name)[0] == 404


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "", "[", "localhost.:80"])
def test_a_foreign_host_is_refused(host: str, page: PageServer) -> None:
    for path in ("/", "/api/runs", "/main.js"):
        assert request(page, path, headers={"Host": host})[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9000", "LOCALHOST:80"])
def test_this_machine_by_either_name_and_any_forwarded_port_is_answered(host: str, page: PageServer) -> None:
    assert request(page, "/api/runs", headers={"Host": host})[0] == 200


def test_what_another_sites_page_asks_for_is_refused_and_its_link_to_the_page_is_not(
    page: PageServer,
) -> None:
    for site in ("cross-site", "same-site"):
        assert request(page, "/api/runs", headers={"Sec-Fetch-Site": site})[0] == 403
        assert request(page, "/", headers={"Sec-Fetch-Site": site})[0] == 200
    assert request(page, "/api/runs", headers={"Sec-Fetch-Site": "same-origin"})[0] == 200


def test_nothing_but_reading_is_answered(page: PageServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert request(page, "/api/runs", method=method)[0] == 501


def test_every_answer_forbids_what_the_page_does_not_need(page: PageServer) -> None:
    for path in ("/", "/style.css", "/api/runs", "/nothing"):
        _, response, _ = request(page, path)
        policy = response.getheader("Content-Security-Policy") or ""
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Cross-Origin-Resource-Policy") == "same-origin"
        assert response.getheader("Access-Control-Allow-Origin") is None


def test_the_scripts_set_text_as_text(page: PageServer) -> None:
    from importlib import resources

    for entry in (resources.files("align_cache.viewing") / "assets").iterdir():
        if entry.name.endswith(".js"):
            script = entry.read_text(encoding="utf-8")
            for way in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
            ):
                assert way not in script, entry.name


def test_the_port_is_of_this_machine_alone(page: PageServer) -> None:
    assert page.server_address[0] == "127.0.0.1"
    assert page.url == f"http://127.0.0.1:{page.server_port}/"


# --- the command --------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_and_a_run_that_is_not_there_are_one_line(
    page: PageServer, drawn: tuple[Path, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["view", "--no-open", "--cache-dir", str(drawn[0])]
    assert main([*command, "--port", str(page.server_port)]) == 2
    assert f"port {page.server_port} is taken" in capsys.readouterr().err
    assert main([*command, "no-such-run"]) == 1
    with pytest.raises(RunError):
        open_view("no-such-run", cache_dir=drawn[0])


def test_the_command_prints_its_address_answers_and_ends_with_ctrl_c(drawn: tuple[Path, Run]) -> None:
    command = [
        sys.executable,
        "-m",
        "align_cache",
        "view",
        "--no-open",
        "--json",
        "--cache-dir",
        str(drawn[0]),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["run"] == drawn[1].id
        port = int(said["url"].rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 0
        assert errors.splitlines()[-1] == "note: closed"
        assert "Traceback" not in errors
