"""The report: records in, figures and one page out, from a whole run, a young one and a damaged one."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from align_cache.cli import main
from align_cache.errors import RunError, UsageError
from align_cache.reporting import draw_figures, report, style
from align_cache.reporting.curves import distribution_curves, loss_curves
from align_cache.reporting.evaluation_tables import calibrated_table, evaluation_tables, hypothesis_table
from align_cache.reporting.gallery import gallery
from align_cache.reporting.headline import tiles
from align_cache.reporting.heatmap import alignment_heatmap
from align_cache.reporting.margins import margin_intervals
from align_cache.reporting.page import render
from align_cache.reporting.space import project, thin
from align_cache.reporting.tables import Table, chance_recall
from align_cache.reporting.training_table import training_table
from align_cache.reporting.tsne_snapshots import PAIRS, chosen_perplexities, first_and_last_figure
from align_cache.reporting.wording import NOT_MEASURED, number, p_value
from align_cache.run_records import read_run

EPOCHS, ROWS, DIM = 3, 24, 16
HOSTILE = "<script>alert('x')</script>&\""


def alignment(level: float) -> dict[str, Any]:
    pairs = {"image_text": 0.2, "image_reference": 0.5, "text_reference": 0.3, "aligned_reference": 0.4}
    return {
        metric: {pair: value + level for pair, value in pairs.items()} for metric in ("mutual_knn", "cka")
    }


def retrieval(level: float) -> dict[str, Any]:
    recall = {"r1": level, "r5": 2 * level, "r10": 3 * level, "median_rank": 7.5, "mrr": 0.3}
    return {
        "image_to_text": {**recall, "n_queries": 20, "n_candidates": 100},
        "text_to_image": {**recall, "n_queries": 100, "n_candidates": 20},
    }


def distribution(level: float) -> dict[str, Any]:
    per_modality = {"image": 4.0 + level, "text": 5.0, "aligned": 4.5}
    return {
        "variance_difference": 0.3 - level,
        "effective_rank": {**per_modality, "reference": 6.0},
        "uniformity": per_modality,
        "modality_gap": 1.0 - level,
        "mean_norm": {"image": 20.0, "text": 21.0},
    }


def epoch_record(epoch: int) -> dict[str, Any]:
    level = 0.1 * epoch / EPOCHS
    losses = {"loss": 5.0 - level, "contrastive": 4.9 - level, "variance": 0.2, "variance_share": 0.02}
    record = {
        "kind": "epoch", "epoch": epoch, "lr": 1e-4, "val": losses, "alignment": alignment(level),
        "chance": {"mutual_knn": 10 / 19, "cka": 0.0}, "n": 20, "k": 10, "retrieval": retrieval(0.1 + level),
        "similarity": {"matched": 0.4 + level, "unmatched": 0.3 - level},
        "distribution": distribution(level), "duration_s": 1.0,
        "hypotheses": {metric: {"h1": level - 0.02, "h2": level - 0.08} for metric in ("mutual_knn", "cka")},
    }  # fmt: skip
    return record | ({"train": losses} if epoch else {})


def evaluation_record() -> dict[str, Any]:
    accuracy = {"accuracy": 0.61, "interval": [0.58, 0.64], "n_train": 500, "n_test": 100, "strength": 1.0}
    rows = {name: {"linear": accuracy, "mlp": accuracy} for name in ("image_features", "image_embeddings")}
    margins = {
        "h1": {"margin": 0.05, "interval": [0.01, 0.09], "p": 0.005, "verdict": "supported"},
        "h2": {"margin": -0.05},
    }
    return {
        "kind": "evaluation", "created": "2026-01-02T03:04:05Z", "checkpoint": "best", "epoch": EPOCHS,
        "split": "test", "n_images": 20, "n_captions": 100, "k": 10,
        "features": {"alignment": alignment(0.0), "retrieval": None, "distribution": distribution(0.0)},
        "embeddings": {
            "alignment": alignment(0.1), "retrieval": retrieval(0.2), "distribution": distribution(0.1),
            "similarity": {"matched": 0.6512, "unmatched": 0.1234},
        },
        "chance": {"mutual_knn": 10 / 19, "cka": 0.0}, "hypotheses": {"embeddings": {"mutual_knn": margins}},
        "probe": {"name": "cifar10", "rows": rows, "relative": {"image_features": {"linear": 0.97}}},
        "gallery": gallery_record(), "untrained": ["resnet18"], "notes": ["a note"],
    }  # fmt: skip


def gallery_record() -> dict[str, Any]:
    """One query of each kind; the right image of the second is in the top 5, that of the third is not."""
    images = [
        {"image_id": f"{i}.jpg", "similarity": 0.9 - 0.1 * i, "caption": f"words {i}"} for i in range(7)
    ]
    queries = [
        {"caption_id": f"{own}.jpg#0", "caption": f"query {own}", "rank": rank, "image": images[own],
         "images": images[:5]}
        for own, rank in ((0, 1), (3, 4), (6, 17))
    ]  # fmt: skip
    counts = {"n_queries": 100, "n_candidates": 20, "hits": 30, "near": 40, "misses": 30}
    return {"direction": "text_to_image", "seed": 0, **counts, "queries": queries}


def run_record() -> dict[str, Any]:
    encoder = {"encoder": "resnet18", "key8": "0123abcd", "dim": DIM, "untrained": True}
    return {
        "id": "20260102-mlp", "project": "multimodal-alignment", "created": "2026-01-02T03:00:00Z",
        "status": "finished", "dataset": "shapes", "adapter": "mlp", "image": encoder,
        "text": {**encoder, "encoder": "tokens", "untrained": False},
        "reference": {**encoder, "encoder": "dinov2", "untrained": False},
        "embed_dim": DIM, "n_parameters": 1234, "n_train_images": 100, "n_train_captions": 500,
        "n_val_images": 20, "n_val_captions": 100, "seed": 0, "duration_s": 12.5, "best_epoch": EPOCHS,
        "peak_memory_bytes": 300_000_000, "untrained": ["resnet18"],
        "command": "align-cache fit --adapter mlp",
    }  # fmt: skip


def write_run(folder: Path, *, reference_dim: int | None = DIM + 3) -> Path:
    """Fabricate a finished and evaluated run whose two modalities approach each other."""
    (folder / "snapshots").mkdir(parents=True)
    steps = [
        {"kind": "step", "epoch": 1 + step // 4, "step": step + 1, "lr": 1e-4, "loss": 5.0,
         "contrastive": 4.9, "variance": 0.2, "variance_share": 0.02, "grad_norm": 1.0}
        for step in range(4 * EPOCHS)
    ]  # fmt: skip
    write_lines(folder / "records.jsonl", [*steps, *(epoch_record(epoch) for epoch in range(EPOCHS + 1))])
    write_lines(folder / "results.jsonl", [evaluation_record()])
    (folder / "run.json").write_text(json.dumps(run_record()))
    (folder / "config.toml").write_text("[fit]\nlr = 1e-4\n")
    for epoch in range(EPOCHS + 1):
        write_snapshot(folder / "snapshots" / f"epoch-{epoch:04d}.npz", 1 - epoch / EPOCHS, reference_dim)
    return folder


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_snapshot(path: Path, gap: float, reference_dim: int | None) -> None:
    random = np.random.default_rng(0)  # the same items in every epoch: only the gap changes
    spread = np.linspace(1.0, 0.2, DIM)
    shared = random.normal(size=(ROWS, DIM)) * spread
    image, text = shared + gap, shared - gap
    arrays = {"image": image, "text": text, "aligned": (image + text) / 2}
    if reference_dim is not None:
        arrays["reference"] = shared @ random.normal(size=(DIM, reference_dim))
    halves = {name: rows.astype(np.float16) for name, rows in arrays.items()}
    np.savez(path, sample_id=np.array([f"item-{row}" for row in range(ROWS)]), **halves)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def flat_run(run_folder: Path) -> Path:
    """The same run without snapshots, whose pictures take most of the time."""
    for snapshot in (run_folder / "snapshots").iterdir():
        snapshot.unlink()
    return run_folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose report has been made; tests only read it."""
    folder = write_run(tmp_path_factory.mktemp("report") / "run")
    report(folder)
    return folder


def test_a_finished_run_has_every_figure_and_each_is_a_picture(finished: Path) -> None:
    names = {path.relative_to(finished / "figures").as_posix() for path in finished.glob("figures/**/*.png")}
    sections = {"loss", "retrieval", "alignment", "alignment-heatmap", "hypotheses", "hypotheses-final"}
    sections |= {"distribution", "probe", "pca-2d", "pca-3d"}
    assert names == {f"{name}.png" for name in sections} | {
        f"pca/epoch-{e:04d}.png" for e in range(EPOCHS + 1)
    }
    from PIL import Image

    for path in finished.glob("figures/**/*.png"):
        with Image.open(path) as picture:
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 3, path


def test_the_page_needs_nothing_outside_itself(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    parser = Links()
    parser.feed(page)
    assert parser.links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parser.links)
    assert not re.search(r"@import|url\(|https?://|fetch\(|XMLHttpRequest", page)


class Links(HTMLParser):
    """Collects every address that a browser would open or load."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_every_link_of_the_page_has_its_section(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert anchors
    assert [anchor for anchor in anchors if f'<section id="{anchor}">' not in page] == []


def test_untrained_encoders_are_named_before_the_first_number(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.index("UNTRAINED: resnet18") < page.index('class="tile"')


def test_the_gallery_says_how_it_was_drawn_and_what_each_query_found(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    section = page[page.index('id="gallery"') : page.index('id="alignment"')]
    assert "3 of the 100 captions of the test split" in section
    assert "the 30 hits (own image first), the 40 near ones (second to tenth) and the 30 misses" in section
    outcomes = re.findall(r'<b class="\w*">(. \w+)</b> (own image at rank \d+ of 20)', section)
    assert outcomes == [
        ("✓ hit", "own image at rank 1 of 20"),
        ("○ near", "own image at rank 4 of 20"),
        ("✗ miss", "own image at rank 17 of 20"),
    ]
    assert section.count("✓ right") == 2
    assert "no pictures were collected" in section


def test_the_gallery_shows_pictures_and_ids_where_there_are_none(flat_run: Path) -> None:
    small = "data:image/png;base64,iVBORw0KGgo="
    told = {"note": "from photographs, matched by id", "images": {"0.jpg": small, "1.jpg": None}}
    (flat_run / "pictures.json").write_text(json.dumps(told))
    page = "".join(gallery(read_run(flat_run)))
    assert page.count(f'src="{small}"') == 4  # first of all three queries, and once the own image
    assert '<div class="picture">1.jpg</div>' in page
    assert "Pictures: from photographs, matched by id." in page


@pytest.mark.parametrize(
    "url",
    ["https://example.org/a.png", "data:image/svg+xml;base64,AAAA", 'data:image/png;base64,A" onload="x'],
)
def test_nothing_but_a_small_picture_is_embedded(flat_run: Path, url: str) -> None:
    (flat_run / "pictures.json").write_text(json.dumps({"note": None, "images": {"0.jpg": url}}))
    page = "".join(gallery(read_run(flat_run)))
    assert url not in page
    assert '<div class="picture">0.jpg</div>' in page


def test_an_evaluation_from_before_the_gallery_says_how_to_get_one(flat_run: Path) -> None:
    write_lines(flat_run / "results.jsonl", [evaluation_record() | {"gallery": None}])
    assert "Not drawn: align-cache eval draws one." in "".join(gallery(read_run(flat_run)))


def test_tables_carry_n_and_k_and_intervals() -> None:
    record = evaluation_record()
    tables = {table.title: table for table in evaluation_tables(record)}
    assert all("N = 20 images" in table.note for title, table in tables.items() if "Probe" not in title)
    assert "k = 10" in tables["Kernel alignment"].note
    assert "+0.0100 … +0.0900" in tables["Hypotheses"].rows[0]
    assert "58.0% – 64.0%" in tables["Probe: cifar10"].rows[0]
    assert all(len(row) == len(table.columns) for table in tables.values() for row in table.rows)


def with_intervals_and_null() -> dict[str, Any]:
    """An evaluation under two metrics with everything that can be measured of them."""
    record = evaluation_record() | {"permutations": 200, "seed": 7}
    for space in ("features", "embeddings"):
        values = record[space]["alignment"]
        values["lcs_knn"] = {pair: 3 * value for pair, value in values.pop("cka").items()}
        record[space]["intervals"] = {
            metric: {pair: [value - 0.0125, value + 0.0125] for pair, value in pairs.items()}
            for metric, pairs in values.items()
        }
        found = {
            "chance": 0.0312,
            "chance_sd": 0.0044,
            "threshold": 0.04,
            "p": 0.004975,
            "calibrated": 0.1234,
        }
        record[space]["null"] = {metric: dict.fromkeys(pairs, found) for metric, pairs in values.items()}
    for direction in record["embeddings"]["retrieval"].values():
        direction["intervals"] = {"r1": [0.1512, 0.2609], "r5": [0.3, 0.5], "r10": [0.5, 0.7]}
    margin = {"margin": 0.9, "interval": [0.8, 1.0], "p": 0.0, "verdict": "supported"}
    record["hypotheses"]["embeddings"]["lcs_knn"] = {"h1": margin, "h2": margin}
    return record


def test_values_and_recalls_carry_intervals_and_the_null_has_its_table(tmp_path: Path) -> None:
    record = with_intervals_and_null()
    tables = {table.title: table for table in evaluation_tables(record)}
    rows = tables["Kernel alignment"].rows
    assert rows[0] == ("mutual k-NN", "image–text", "0.2000 ± 0.0125", "0.3000 ± 0.0125", "+0.1000", "0.5263")
    assert "not measured" not in tables["Kernel alignment"].note
    assert tables["Retrieval"].rows[1] == ("· 95%", "15.1–26.1", "30.0–50.0", "50.0–70.0", *("",) * 4)
    null = tables["Permutation null, embeddings"]
    assert null.rows[0] == ("mutual k-NN", "image–text", "0.3000", "0.0312", "0.0044", "0.005", "0.1234")
    assert len(null.rows) == 8
    calibrated = calibrated_table(record)
    assert calibrated is not None
    assert calibrated.rows[1] == ("LCS k-NN", *["0.1234 (0.005)"] * 4)
    assert "200 shuffles, seed 7" in calibrated.note
    for part in ("200 shuffles", "N = 20 images", "k = 10"):
        assert part in null.note
    (tmp_path / "run.json").write_text(json.dumps(run_record()))
    write_lines(tmp_path / "results.jsonl", [record])
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "Permutation null, features" in page
    assert "Calibrated alignment, embeddings" in page
    assert "95% interval 15.1–26.1" in page
    assert "95% interval 0.4875 … 0.5125" in page


def test_cosine_similarity_stands_in_the_tables_and_is_drawn_over_training(flat_run: Path) -> None:
    run = read_run(flat_run)
    (spread,) = (table for table in evaluation_tables(run.judged) if table.title == "Distribution")
    assert spread.rows[:2] == (
        ("cosine similarity, matched pairs", NOT_MEASURED, "0.6512"),
        ("cosine similarity, unmatched pairs", NOT_MEASURED, "0.1234"),
    )
    (row,) = training_table(run).rows
    assert row == ("resnet18 + tokens, mlp", "3, best 3", "4.9000", "0.5000", "0.2000")
    figure = distribution_curves(run)
    assert figure is not None
    (axes,) = (axes for axes in figure.axes if axes.get_title(loc="left") == "Cosine similarity")
    matched, unmatched, *_ = axes.lines
    levels = [0.1 * epoch / EPOCHS for epoch in range(EPOCHS + 1)]
    assert list(np.ravel(matched.get_ydata())) == pytest.approx([0.4 + level for level in levels])
    assert list(np.ravel(unmatched.get_ydata())) == pytest.approx([0.3 - level for level in levels])
    assert {"matched", "unmatched"} <= {text.get_text() for text in axes.texts}


def test_margins_in_counts_are_drawn_apart_from_shares(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run_record()))
    write_lines(tmp_path / "results.jsonl", [with_intervals_and_null()])
    figure = margin_intervals(read_run(tmp_path))
    assert figure is not None
    shares, counts = figure.axes
    assert [label.get_text() for label in counts.get_yticklabels()] == [
        "H2 · LCS k-NN · against embeddings",
        "H1 · LCS k-NN · against embeddings",
    ]
    assert shares.get_xlim()[1] < 0.2 < counts.get_xlim()[1]


def test_margins_stand_metric_by_metric_and_many_of_them_are_folded_away(tmp_path: Path) -> None:
    record = with_intervals_and_null()
    table = hypothesis_table(record)
    heads = [row[:3] for row in table.rows]
    assert heads == [
        (metric, "embeddings", key) for metric in ("mutual k-NN", "LCS k-NN") for key in ("H1", "H2")
    ]
    assert [row[:3] for row in table.shown()] == [
        ("mutual k-NN", "embeddings", "H1"), ("", "", "H2"), ("LCS k-NN", "embeddings", "H1"), ("", "", "H2"),
    ]  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(run_record()))
    for metrics, folded in ((["a"], False), (["a", "b", "c", "d", "e"], True)):
        margin = {"margin": 0.1, "interval": [0.0, 0.2], "p": 0.1, "verdict": "undecided"}
        tests = {metric: {"h1": margin, "h2": margin} for metric in metrics}
        write_lines(tmp_path / "results.jsonl", [record | {"hypotheses": {"embeddings": tests}}])
        assert ("the margins as a table" in render(read_run(tmp_path), None, [])) == folded


def test_a_label_is_shown_once_and_never_borrowed_from_another_group() -> None:
    rows = (("a", "x", "1"), ("a", "x", "2"), ("a", "y", "3"), ("b", "y", "3"), ("b", "y", "3"))
    table = Table("", ("", "", ""), rows, label_columns=3)
    assert table.shown() == (("a", "x", "1"), ("", "", "2"), ("", "y", "3"), ("b", "y", "3"), ("", "", "3"))
    assert Table("", ("", ""), (("a", "1"), ("a", "1"))).shown() == (("a", "1"), ("a", "1"))


def test_a_record_from_before_intervals_says_that_they_were_not_measured() -> None:
    tables = {table.title: table for table in evaluation_tables(evaluation_record())}
    assert "95% intervals not measured" in tables["Kernel alignment"].note
    assert tables["Kernel alignment"].rows[0][3] == "0.3000"
    assert tables["Retrieval"].rows[1][:2] == ("· 95%", NOT_MEASURED)
    assert not any("null" in title for title in tables)


def test_what_a_record_lacks_is_called_not_measured() -> None:
    empty = {"kind": "evaluation", "split": "test"}
    tables = evaluation_tables(empty)
    assert [table.title for table in tables] == [
        "Retrieval",
        "Kernel alignment",
        "Hypotheses",
        "Distribution",
    ]
    assert all(any(NOT_MEASURED in row for row in table.rows) for table in tables)
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)


@pytest.mark.parametrize("file", ["run.json", "results.jsonl"])
def test_strings_of_a_record_never_become_markup(flat_run: Path, file: str) -> None:
    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poison(item) for key, item in value.items()}
        if isinstance(value, list):
            return [poison(item) for item in value]
        return HOSTILE if isinstance(value, str) and value != "evaluation" else value

    path = flat_run / file
    path.write_text(json.dumps(poison(json.loads(path.read_text()))) + "\n")
    (flat_run / "config.toml").write_text(f"name = {HOSTILE}")
    page = report(flat_run).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_failed_run_says_why_before_the_first_number(flat_run: Path) -> None:
    failed = run_record() | {"status": "failed", "error": "the loss became NaN"}
    (flat_run / "run.json").write_text(json.dumps(failed))
    page = report(flat_run).read_text(encoding="utf-8")
    assert page.index("This run is failed (the loss became NaN)") < page.index('class="tile"')


def test_a_run_that_only_began_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"id": "young", "status": "running"}))
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "This run is running" in page
    assert "Not evaluated yet" in page
    assert NOT_MEASURED in page
    assert draw_figures(tmp_path) == []


def test_before_an_evaluation_the_page_shows_the_best_epochs_validation(flat_run: Path) -> None:
    (flat_run / "results.jsonl").unlink()
    record = run_record() | {"best_epoch": 1}
    (flat_run / "run.json").write_text(json.dumps(record))
    judged = read_run(flat_run).judged
    assert (judged["split"], judged["epoch"], judged["n_images"], judged["n_captions"]) == (
        "validation",
        1,
        20,
        100,
    )
    page = report(flat_run).read_text(encoding="utf-8")
    assert "validation split, N = 20 images, 100 captions" in page


def test_a_run_without_a_reference_is_drawn_with_what_it_has(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", reference_dim=None)
    only = {"mutual_knn": {"image_text": 0.2}, "cka": {"image_text": None}}
    epochs = [epoch_record(epoch) | {"alignment": only, "hypotheses": None} for epoch in range(EPOCHS + 1)]
    write_lines(folder / "records.jsonl", epochs)
    evaluation = evaluation_record() | {"hypotheses": None, "probe": None}
    evaluation["embeddings"] = {"alignment": only, "retrieval": None, "distribution": None}
    write_lines(folder / "results.jsonl", [evaluation])
    (folder / "run.json").write_text(json.dumps(run_record() | {"reference": None}))
    page = report(folder).read_text(encoding="utf-8")
    assert not (folder / "figures" / "hypotheses.png").exists()
    assert "Margins of H1 and H2 after each epoch, validation split: not measured." in page
    run = read_run(folder)
    assert [tile.label for tile in tiles(run)] == ["Recall at 1, image → text", "Recall at 1, text → image"]


def test_an_alignment_of_zero_in_every_epoch_was_measured(tmp_path: Path) -> None:
    epochs = [epoch_record(epoch) | {"alignment": {"mutual_knn": {"image_text": 0.0}}} for epoch in range(3)]
    folder = tmp_path / "run"
    folder.mkdir()
    write_lines(folder / "records.jsonl", epochs)
    (folder / "run.json").write_text(json.dumps(run_record()))
    figure = alignment_heatmap(read_run(folder))
    assert figure is not None
    written = [text.get_text() for text in figure.findobj(Text)]
    assert "0.000 → 0.000" in written
    assert written.count("not measured") == 3


def test_dollar_signs_in_names_are_drawn_as_they_are(flat_run: Path) -> None:
    evaluation = evaluation_record()
    evaluation["probe"]["name"] = evaluation["split"] = "a$\\frac$b"
    write_lines(flat_run / "results.jsonl", [evaluation])
    assert draw_figures(flat_run)


def test_the_latest_evaluation_and_the_latest_record_of_an_epoch_count(run_folder: Path) -> None:
    newer = evaluation_record() | {"split": "val"}
    write_lines(run_folder / "results.jsonl", [evaluation_record(), newer])
    write_lines(run_folder / "records.jsonl", [epoch_record(1), epoch_record(0), epoch_record(1) | {"n": 7}])
    run = read_run(run_folder)
    assert run.evaluation == newer
    assert [(epoch["epoch"], epoch["n"]) for epoch in run.epochs] == [(0, 20), (1, 7)]


def test_a_line_still_being_written_is_left_out_and_a_damaged_one_refused(run_folder: Path) -> None:
    path = run_folder / "records.jsonl"
    write_lines(path, [epoch_record(0)])
    with path.open("a") as file:
        file.write('{"kind": "epo')
    assert len(read_run(run_folder).epochs) == 1
    path.write_text('{"kind": "epo\n')
    with pytest.raises(RunError, match=r"records\.jsonl holds a line that is not JSON"):
        read_run(run_folder)


@pytest.mark.parametrize("content", ["[]", "7", "{"])
def test_a_run_json_of_another_kind_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json"):
        report(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json is missing"):
        report(tmp_path)


def test_a_damaged_snapshot_is_refused_by_name(run_folder: Path) -> None:
    (run_folder / "snapshots" / "epoch-0001.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(RunError, match=r"epoch-0001\.npz cannot be read"):
        report(run_folder)


def test_a_snapshot_of_other_rows_is_refused_by_name(run_folder: Path) -> None:
    path = run_folder / "snapshots" / "epoch-0002.npz"
    np.savez(path, image=np.zeros((3, 4), np.float16), text=np.zeros((2, 4), np.float16))
    with pytest.raises(
        RunError, match=r"epoch-0002\.npz: expected as many image, text, aligned and reference rows"
    ):
        report(run_folder)


def test_snapshots_of_two_embedding_sizes_are_refused(run_folder: Path) -> None:
    rows = np.zeros((ROWS, DIM + 1), np.float16)
    np.savez(run_folder / "snapshots" / "epoch-0002.npz", image=rows, text=rows)
    with pytest.raises(RunError, match="snapshots: expected one shape in all epochs"):
        report(run_folder)


def test_the_same_records_give_the_same_bytes(run_folder: Path) -> None:
    """Page and pictures; `draw_figures` alone would not see the page's own order."""
    report(run_folder)
    first = content(run_folder)
    report(run_folder)
    assert [name for name, data in content(run_folder).items() if first[name] != data] == []


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_says_why_there_are_no_pictures(
    flat_run: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(flat_run), "--json", "--cache-dir", str(cache_dir)]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["report"] == str(flat_run / "report.html")
    assert (made["pictures"], made["pictures_note"]) == (
        0,
        "the feature set of the images is not in this cache",
    )
    assert f"Pictures: {made['pictures_note']}." in (flat_run / "report.html").read_text(encoding="utf-8")


def test_progress_reaches_the_number_of_figures(flat_run: Path) -> None:
    told: list[tuple[int, int]] = []
    paths = draw_figures(flat_run, on_progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert told[-1] == (len(paths), len(paths))


def test_report_imports_neither_torch_nor_pyplot(run_folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from align_cache.reporting import report\n"
        "assert 'matplotlib' not in sys.modules, 'matplotlib is for those who draw'\n"
        "report(Path(sys.argv[1]))\n"
        "print([m for m in ('torch', 'matplotlib.pyplot', 'sklearn', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run_folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_one_basis_serves_all_epochs(run_folder: Path) -> None:
    """Only the gap changes between these snapshots, so nothing but a translation may be seen."""
    space = project(read_run(run_folder))
    assert space is not None
    first, last = space.points[0], space.points[EPOCHS]
    for name in ("image", "text"):
        moved = last[name] - first[name]
        np.testing.assert_allclose(moved - moved.mean(axis=0), 0, atol=5e-3)
        assert np.linalg.norm(moved.mean(axis=0)) > 1
    np.testing.assert_allclose(last["image"], last["text"], atol=5e-3)


def test_the_projection_is_that_of_a_plain_pca(run_folder: Path) -> None:
    snapshots = [np.load(path) for path in sorted((run_folder / "snapshots").iterdir())]
    stacked = [snapshot[name] for snapshot in snapshots for name in ("image", "text", "aligned")]
    pooled = np.concatenate(stacked).astype(np.float64)
    centred = pooled - pooled.mean(axis=0)
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    space = project(read_run(run_folder))
    assert space is not None
    ours = np.concatenate(
        [space.points[epoch][name] for epoch in space.points for name in ("image", "text", "aligned")]
    )
    np.testing.assert_allclose(np.abs(ours), np.abs(left[:, :3] * scales[:3]), atol=1e-3)
    np.testing.assert_allclose(space.explained, scales[:3] ** 2 / (scales**2).sum(), rtol=1e-4)


def test_turning_the_reference_keeps_its_distances_and_its_place_over_epochs(run_folder: Path) -> None:
    space = project(read_run(run_folder))
    assert space is not None
    turned = space.points[0]["reference"]
    np.testing.assert_array_equal(turned, space.points[EPOCHS]["reference"])
    with np.load(run_folder / "snapshots" / "epoch-0003.npz") as arrays:
        reference = arrays["reference"].astype(np.float64)
    left, scales, _ = np.linalg.svd(reference - reference.mean(axis=0), full_matrices=False)
    own = left[:, :3] * scales[:3]
    np.testing.assert_allclose(distances(turned), distances(own), atol=1e-2)


def distances(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows[:, None] - rows[None], axis=-1)


def write_clusters(folder: Path, *, pairs: int) -> None:
    """Snapshots of five clusters: pairs lie together in the last epoch and modalities in the first."""
    random = np.random.default_rng(0)
    centres = np.eye(5, 8)[np.arange(pairs) % 5]
    for epoch, apart in ((0, 5.0), (4, 2.0), (9, 0.0)):
        image, text = (centres + side * apart + 0.05 * random.standard_normal((pairs, 8)) for side in (-1, 1))
        halves = {"image": image.astype(np.float16), "text": text.astype(np.float16)}
        np.savez(folder / f"epoch-{epoch:04d}.npz", **halves)


@pytest.fixture
def clustered(tmp_path: Path) -> Path:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "run.json").write_text("{}")
    write_clusters(tmp_path / "snapshots", pairs=60)
    return tmp_path


def test_tsne_is_drawn_unasked_at_thirty_where_there_are_points_enough(clustered: Path) -> None:
    run = read_run(clustered)
    assert chosen_perplexities(run, project(run), None) == (30,)
    write_clusters(clustered / "snapshots", pairs=45)
    run = read_run(clustered)
    assert chosen_perplexities(run, project(run), None) == ()
    assert chosen_perplexities(run, project(run), (5, 89, 5)) == (5, 89)


@pytest.mark.parametrize("perplexity", [1, 120])
def test_a_perplexity_that_the_points_do_not_bear_is_refused_before_anything_is_drawn(
    clustered: Path, perplexity: int
) -> None:
    with pytest.raises(UsageError, match=f"perplexity {perplexity}: expected 2 to 119"):
        report(clustered, perplexities=(5, perplexity))
    assert not (clustered / "figures").exists()


def test_a_perplexity_without_snapshots_is_refused(flat_run: Path) -> None:
    with pytest.raises(RunError, match="has no snapshots to draw"):
        report(flat_run, perplexities=(5,))


def test_tsne_shows_the_first_and_the_last_epoch_with_pairs_joined(clustered: Path) -> None:
    figure = first_and_last_figure(read_run(clustered), 10)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["epoch 0, before training", "epoch 9"]
    lengths = []
    for axes in figure.axes:
        lines, points = axes.collections
        assert len(points.get_offsets()) == 120
        segments = np.array([path.vertices for path in lines.get_paths()])
        assert segments.shape == (60, 2, 2)
        spread = np.asarray(points.get_offsets()).std(axis=0).max()
        lengths.append(np.linalg.norm(segments[:, 0] - segments[:, 1], axis=1).mean() / spread)
    assert lengths[1] < 0.5 * lengths[0]  # pairs that came together are drawn together


def test_tsne_is_a_file_for_each_perplexity_and_stands_on_the_page(clustered: Path) -> None:
    page = report(clustered, perplexities=(5, 20)).read_text(encoding="utf-8")
    drawn = sorted(path.stem for path in (clustered / "figures").glob("tsne*.png"))
    assert drawn == ["tsne-first-last-perplexity-20", "tsne-first-last-perplexity-5"]
    assert page.index("captions, perplexity 5") < page.index("captions, perplexity 20")
    first = content(clustered)
    report(clustered, perplexities=(5, 20))
    assert content(clustered) == first


def test_no_more_pairs_are_laid_out_than_can_be_told_apart(clustered: Path) -> None:
    write_clusters(clustered / "snapshots", pairs=PAIRS + 1)
    run = read_run(clustered)
    with pytest.raises(UsageError, match=f"{2 * PAIRS} points are drawn"):
        chosen_perplexities(run, project(run), (2 * PAIRS,))


@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (2, 2), (5, 1)])
def test_tiny_snapshots_are_projected(tmp_path: Path, rows: int, dim: int) -> None:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "run.json").write_text("{}")
    plane = np.arange(rows * dim, dtype=np.float16).reshape(rows, dim)
    np.savez(
        tmp_path / "snapshots" / "epoch-0000.npz", image=plane, text=plane, aligned=plane, reference=plane
    )
    assert report(tmp_path).stat().st_size > 10_000


def test_thinning_keeps_both_ends_and_repeats_nothing() -> None:
    for size in range(1, 60):
        kept = thin(list(range(size)), 9)
        assert len(kept) == min(size, 9)
        assert (kept[0], kept[-1]) == (0, size - 1)
        assert sorted(set(kept)) == kept


@pytest.mark.parametrize(
    ("queries", "candidates", "k"), [(20, 100, 1), (20, 100, 10), (100, 20, 5), (3, 3, 10)]
)
def test_chance_recall_is_the_hypergeometric_hit_rate(queries: int, candidates: int, k: int) -> None:
    answers = max(1, candidates // queries)
    draws = min(k, candidates)
    expected = 1 - comb(candidates - answers, draws) / comb(candidates, draws)
    assert chance_recall({"n_queries": queries, "n_candidates": candidates}, k) == pytest.approx(expected)


def test_numbers_keep_about_four_figures() -> None:
    assert [number(value) for value in (0.01234, 12.345, 345.67, -0.5, None)] == [
        "0.0123", "12.35", "345.7", "−0.5000", NOT_MEASURED
    ]  # fmt: skip
    assert number(0.05, signed=True) == "+0.0500"
    assert [p_value(value) for value in (0.0, 0.0009, 0.004975, 1.0)] == [
        "<0.001",
        "<0.001",
        "0.005",
        "1.000",
    ]


def test_a_loss_that_became_nan_does_not_hide_what_came_before(run_folder: Path) -> None:
    broken = epoch_record(EPOCHS) | {"val": {"loss": float("nan")}}
    write_lines(run_folder / "records.jsonl", [*(epoch_record(epoch) for epoch in range(EPOCHS)), broken])
    figure = loss_curves(read_run(run_folder))
    assert figure is not None
    validation = figure.axes[0].lines[-2]
    assert list(validation.get_xdata()) == [0, 1, 2]


def test_labels_at_line_ends_keep_their_distance() -> None:
    axes = style.new_figure(4, 3).add_subplot()
    axes.set_ylim(0, 1)
    style.label_ends(axes, [(1, y, f"{y}", "black") for y in (0.0, 0.5, 0.51, 0.99, 1.0)], gap=0.1)
    heights = sorted(text.xy[1] for text in axes.texts)  # type: ignore[attr-defined]
    assert len(heights) == 5
    assert np.diff(heights).min() >= 0.1 - 1e-9
    assert heights[0] >= 0
    assert heights[-1] <= 1
