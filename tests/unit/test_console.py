"""The terminal: what goes to which stream, and how records look there."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from align_cache.reporting.evaluation_tables import evaluation_tables
from align_cache.reporting.tables import METRICS
from align_cache.terminal import console
from align_cache.terminal import tables as terminal_tables


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of eighty columns in place of stderr."""
    stream = io.StringIO()
    fake = Console(file=stream, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "stderr", lambda: fake)
    return stream


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A log file in place of stderr, and a clock that goes one second with each look."""
    stream = io.StringIO()
    fake = Console(file=stream, width=80)
    ticks = iter(range(10_000))
    monkeypatch.setattr(console, "stderr", lambda: fake)
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(ticks)))
    return stream


def shown(renderable: object, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(renderable)
    return stream.getvalue()


def test_a_terminal_sees_count_and_rate(terminal: io.StringIO) -> None:
    with console.progress(1200, "decoding [x]", "images") as bar:
        bar.advance(600)
        bar.update(1200, 1200)
    last = terminal.getvalue()
    assert "decoding [x]" in last
    assert "1,200/1,200" in last
    assert "images/s" in last


def test_a_log_gets_a_plain_line_every_ten_seconds(log: io.StringIO) -> None:
    with console.progress(100, "encoding", "captions") as bar:
        for _ in range(25):
            bar.advance(2)
    lines = log.getvalue().splitlines()
    assert lines == [
        "encoding: 20/100 captions, 2 captions/s, 40 s left",
        "encoding: 40/100 captions, 2 captions/s, 30 s left",
    ]


def test_short_work_leaves_a_log_silent(log: io.StringIO) -> None:
    with console.progress(None, "drawing", "figures") as bar:
        bar.update(3, 3)
    assert log.getvalue() == ""


def test_an_evaluation_fits_eighty_columns_and_warns_of_untrained_encoders_first() -> None:
    direction = {"r1": 0.5, "r5": 0.7, "r10": 0.8, "median_rank": 1.0, "mrr": 0.6}
    record = {
        "split": "test", "n_images": 1000, "n_captions": 5000, "k": 10, "untrained": ["resnet18"],
        "embeddings": {
            "alignment": {"mutual_knn": {"image_text": 0.1}},
            "retrieval": {"image_to_text": {**direction, "n_queries": 1000, "n_candidates": 5000}},
        },
        "hypotheses": {"embeddings": {"mutual_knn": {"h1": {
            "margin": 0.01, "interval": [-0.01, 0.03], "p": 0.2, "verdict": "undecided"}}}},
    }  # fmt: skip
    lines = shown(terminal_tables.evaluation_table(record)).splitlines()
    assert lines[0].startswith("UNTRAINED encoders: resnet18")
    text = "\n".join(lines)
    assert "−0.0100 … +0.0300" in text
    assert "· chance" in text
    assert [line for line in lines if line.split() in (["chance"], ["text"], ["reference"])] == []
    assert "N = 1,000 images, 5,000 captions" in text


def test_an_evaluation_with_everything_measured_fits_eighty_columns() -> None:
    """A line that had to be folded would show more lines than the table has rows."""
    pairs = ("image_text", "image_reference", "text_reference", "aligned_reference")
    values = {metric: dict.fromkeys(pairs, 0.1234) for metric in METRICS}
    null = {"chance": -0.0123, "chance_sd": 0.0123, "p": 0.004975, "calibrated": 0.1234}
    bounds = {"r1": [0.101, 0.202], "r5": [0.303, 0.404], "r10": [0.505, 0.606]}
    direction = {"r1": 0.15, "r5": 0.35, "r10": 0.55, "intervals": bounds, "median_rank": 19.0, "mrr": 0.1,
                 "n_queries": 31014, "n_candidates": 31014}  # fmt: skip
    margin = {"margin": -0.0123, "interval": [-0.0123, -0.0111], "p": 0.0, "verdict": "not supported"}
    part = {
        "alignment": values,
        "intervals": {metric: {pair: [0.1111, 0.1357] for pair in pairs} for metric in METRICS},
        "null": {metric: dict.fromkeys(pairs, null) for metric in METRICS},
        "retrieval": {"image_to_text": direction, "text_to_image": direction},
    }
    record = {
        "split": "test", "n_images": 31014, "n_captions": 155070, "k": 10, "permutations": 200,
        "features": part, "embeddings": part, "chance": {"mutual_knn": 0.0003, "cka": 0.0},
        "hypotheses": {space: {metric: {"h1": margin, "h2": margin} for metric in METRICS}
                       for space in ("features", "embeddings")},
    }  # fmt: skip
    for table in evaluation_tables(record):
        lines = shown(terminal_tables.rich_table(replace(table, note=""))).splitlines()
        assert len(lines) == len(table.rows) + 5, table.title  # title, header, its rule, two blank lines


def test_brackets_in_a_record_are_text_and_not_markup() -> None:
    text = shown(terminal_tables.run_summary({"id": "[bold]run[/bold]", "untrained": ["[red]x"]}))
    assert "[bold]run[/bold]" in text
    assert "[red]x" in text


def test_data_and_notes_go_to_their_streams_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    console.stdout().print("data", style="red")
    console.stderr().print("note", style="red")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("data\n", "note\n")


def test_importing_the_console_imports_neither_rich_nor_numpy() -> None:
    program = (
        "import sys, align_cache.terminal.console\n"
        "print([name for name in ('rich', 'numpy', 'torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
