"""Comparing runs: who belongs together, means and intervals worked out by hand, tables, figure, commands."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from rich.console import Console

from align_cache import compare
from align_cache.cli import main
from align_cache.errors import RunError, UsageError
from align_cache.judging.comparison import Comparison
from align_cache.judging.judged_run import list_entry
from align_cache.reporting.comparison import comparison_tables
from align_cache.reporting.comparison_curves import comparison_curves
from align_cache.reporting.comparison_figure import comparison_figure, draw_comparison
from align_cache.reporting.comparison_page import comparison_page
from align_cache.reporting.comparison_words import words
from align_cache.results import Run
from align_cache.terminal.tables import comparison_table, runs_table
from tests.benchmarks.results_page import effects

R1 = "retrieval.image_to_text.r1"
H1 = "hypotheses.embeddings.mutual_knn.h1"
GREY = "#d3d6da"
VERDICTS = {True: "supported", False: "not supported"}


def evaluation(level: float, **changes: Any) -> dict[str, Any]:
    pairs = ("image_text", "image_reference", "text_reference", "aligned_reference")
    margin = level - 0.25
    tests = {key: {"margin": margin, "interval": [margin, margin], "p": 0.5, "verdict": VERDICTS[margin > 0]}
             for key in ("h1", "h2")}  # fmt: skip
    recalls = {"r1": level, "r5": level, "r10": level}
    return {
        "kind": "evaluation", "checkpoint": "best", "epoch": 2, "split": "test", "n_images": 1000,
        "n_captions": 5000, "k": 10, "untrained": [], "notes": [], "probe": None,
        "embeddings": {
            "alignment": {metric: dict.fromkeys(pairs, level) for metric in ("mutual_knn", "cka")},
            "retrieval": {"image_to_text": recalls, "text_to_image": recalls},
            "distribution": {"variance_difference": level, "modality_gap": None},
        },
        "hypotheses": {baseline: {"mutual_knn": tests, "cka": tests}
                       for baseline in ("embeddings", "features")},
    } | changes  # fmt: skip


def probe(accuracy: float) -> dict[str, Any]:
    rows = {"image_features": {"linear": {"accuracy": accuracy}, "mlp": None}}
    return {"name": "cifar10.1", "rows": rows, "relative": {}, "notes": []}


class Runs:
    """Fabricates run folders."""

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / "runs"
        self.folder.mkdir(parents=True)

    def add(
        self,
        name: str,
        *levels: float,
        seed: int = 0,
        config: dict[str, Any] | None = None,
        info: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Run:
        """A run with one evaluation a level."""
        run = Run(self.folder / f"mlp-{name}")
        run.folder.mkdir()
        features = {"encoder": "resnet18", "key8": "0123abcd", "untrained": False}
        run.update(**{
            "id": run.id, "status": "finished", "dataset": "shapes", "adapter": "mlp", "seed": seed,
            "image": features, "text": features, "reference": features, "best_epoch": 2, "untrained": [],
            "created": f"2026-01-01T00:00:00 {name}", "error": None,
        } | (info or {}))  # fmt: skip
        data = dict.fromkeys(("image_encoder", "text_encoder", "reference"), "resnet18")
        settings = {"seed": seed, "data": data, "optim": {"epochs": 3, "lr": 0.1}, "loss": {}, "log": {}}
        settings = {key: {**value, **(config or {}).get(key, {})} if isinstance(value, dict) else value
                    for key, value in settings.items()}  # fmt: skip
        (run.folder / "config.toml").write_text(tomli_w.dumps(settings))
        for epoch in range(3):
            run.append_record({"kind": "epoch", "epoch": epoch, "val": {"loss": 5.0 - epoch}})
        for level in levels:
            run.append_result(evaluation(level, **changes))
        with (self.folder / "index.jsonl").open("a") as index:
            index.write(json.dumps({"id": run.id, "path": str(run.folder)}) + "\n")
        return run


@pytest.fixture
def runs(cache_dir: Path) -> Runs:
    return Runs(cache_dir)


@pytest.fixture
def two_groups(runs: Runs) -> Comparison:
    """Matching off, seeds 0 to 3, and on, seeds 1 to 3, whose paired differences are 0.01, 0.02 and 0.03."""
    off = [runs.add(f"off{seed}", 0.3, seed=seed) for seed in range(4)]
    on = [runs.add(f"on{seed}", 0.3 + 0.01 * seed, seed=seed, config={"loss": {"matching": True}})
          for seed in (1, 2, 3)]  # fmt: skip
    return compare([*off, *on])


def test_runs_that_differ_in_seed_and_log_are_one_group_with_mean_and_sample_deviation(runs: Runs) -> None:
    compared = compare(
        [runs.add(f"s{seed}", level, seed=seed, config={"log": {"save_dir": f"there/{seed}"}})
         for seed, level in ((2, 0.4), (0, 0.1), (1, 0.2))]
    )  # fmt: skip
    (group,) = compared.groups
    assert [run.seed for run in group.runs] == [0, 1, 2]
    assert group.settings == {}
    spread = group.numbers[R1]
    # mean 0.7/3; squares of the deviations −4/30, −1/30, 5/30 sum to 42/900; over n − 1 = 2
    assert (spread.mean, spread.sd, spread.n) == (
        pytest.approx(0.7 / 3),
        pytest.approx(math.sqrt(21 / 900)),
        3,
    )
    assert group.verdicts[H1] == {"not supported": 2, "supported": 1}
    assert compared.paired is None


@pytest.mark.parametrize(
    ("changes", "column", "values"),
    [
        ({"config": {"optim": {"lr": 0.2}}}, "optim.lr", [0.1, 0.2]),
        ({"config": {"loss": {"matching": True}}}, "loss.matching", [None, True]),
        (
            {"info": {"image": {"encoder": "resnet18", "key8": "ffff0000"}}},
            "data.image_encoder",
            ["resnet18@0123abcd", "resnet18@ffff0000"],
        ),
        ({"info": {"reference": None}}, "data.reference", ["resnet18@0123abcd", None]),
        ({"k": 5}, "eval.k", [10, 5]),
        ({"split": "val"}, "eval.split", ["test", "val"]),
        ({"checkpoint": "last", "epoch": 3}, "eval.checkpoint", ["best", "last"]),
    ],
)
def test_any_other_difference_makes_another_group_and_is_its_only_column(
    runs: Runs, changes: dict[str, Any], column: str, values: list[Any]
) -> None:
    compared = compare([runs.add("a", 0.1), runs.add("b", 0.2, seed=1, **changes)])
    assert [group.settings for group in compared.groups] == [{column: value} for value in values]
    assert column not in compared.shared


def test_one_run_has_no_deviation(runs: Runs) -> None:
    compared = compare([runs.add("a", 0.1)])
    assert compared.groups[0].numbers[R1].sd is None
    cells = [cell for table in comparison_tables(compared) for row in table.rows for cell in row]
    assert not any("±" in cell for cell in cells)
    assert "10.0" in cells


def test_the_latest_evaluation_counts(runs: Runs) -> None:
    assert compare([runs.add("a", 0.1, 0.2)]).groups[0].numbers[R1].mean == 0.2


def test_the_validation_loss_is_that_of_the_epoch_judged(runs: Runs) -> None:
    assert compare([runs.add("a", 0.1)]).groups[0].numbers["val_loss"].mean == 3.0


def test_the_interval_of_a_mean_is_by_students_t_and_that_of_a_single_run_its_own(runs: Runs) -> None:
    three = [runs.add(f"s{seed}", level, seed=seed) for seed, level in enumerate((0.1, 0.2, 0.3))]
    interval = compare(three).groups[0].numbers[R1].interval
    half = 4.302653 * 0.1 / math.sqrt(3)  # t of 2 degrees of freedom; 0.1, 0.2, 0.3 have sd 0.1
    assert interval == pytest.approx((0.2 - half, 0.2 + half))
    numbers = compare(three[:1]).groups[0].numbers
    assert numbers[H1].interval == pytest.approx((-0.15, -0.15))
    assert numbers[R1].interval is None


def test_calibrated_scores_are_compared_with_their_shuffles_and_largest_p(runs: Runs) -> None:
    found = {
        seed: {"permutations": 50 if seed else 0, "embeddings": with_null(0.02 * seed)} for seed in range(3)
    }
    compared = compare([runs.add(f"s{seed}", 0.3, seed=seed, **null) for seed, null in found.items()])
    assert compared.groups[0].numbers["calibrated.cka.image_text"].mean == pytest.approx(0.25)
    (table,) = [table for table in comparison_tables(compared) if table.title.startswith("Calibrated")]
    assert table.rows == (("1", "0.2500 ± 0.0000", *["not measured"] * 3),)
    assert table.note.startswith("50 shuffles; p at most 0.040; test split, N = 1,000 images")
    drawn = [axes.get_title(loc="left") for axes in comparison_figure(compared).axes]
    assert not any("calibrated" in title for title in drawn)


def with_null(p: float) -> dict[str, Any]:
    embeddings: dict[str, Any] = evaluation(0.3)["embeddings"]
    return embeddings | {"null": {"cka": {"image_text": {"calibrated": 0.25, "p": p}}}}


def test_a_run_named_twice_counts_once(runs: Runs) -> None:
    run = runs.add("a", 0.1)
    compared = compare([run, Run(run.folder / ".." / run.id)])
    assert compared.groups[0].numbers[R1].n == 1
    assert compared.left_out == ()


def test_of_two_runs_with_one_seed_the_newer_counts_whatever_their_order(runs: Runs) -> None:
    old, new = runs.add("a", 0.1), runs.add("b", 0.2)
    for order in ([old, new], [new, old]):
        compared = compare(order)
        assert [run.run.id for run in compared.groups[0].runs] == [new.id]
        (left_out,) = compared.left_out
        assert left_out.run == old.id
        assert new.id in left_out.reason


@pytest.mark.parametrize(
    ("info", "levels", "reason", "remedy"),
    [
        ({}, (), "has no evaluation", "align-cache eval mlp-x"),
        ({"status": "failed", "error": "loss is nan"}, (0.9,), "failed: loss is nan", "fit --resume mlp-x"),
        ({"status": "running"}, (0.9,), "is running", "align-cache fit --resume mlp-x"),
        ({"best_epoch": 3}, (0.9,), "was evaluated at epoch 2, and its best is now 3", "eval mlp-x"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_compared_is_named_with_the_way_out_and_enters_no_mean(
    runs: Runs, info: dict[str, Any], levels: tuple[float, ...], reason: str, remedy: str
) -> None:
    compared = compare([runs.add("a", 0.1), runs.add("x", *levels, seed=1, info=info)])
    assert compared.groups[0].numbers[R1].mean == 0.1
    (left_out,) = compared.left_out
    assert (left_out.run, left_out.reason) == ("mlp-x", reason)
    assert remedy in str(left_out.remedy)
    shown = rendered(comparison_table(compared), 80)
    assert reason in shown
    assert remedy in shown


def test_nothing_to_compare_is_an_error_that_says_what_to_do(runs: Runs) -> None:
    with pytest.raises(UsageError, match="no run is named"):
        compare([])
    with pytest.raises(RunError, match="mlp-a has no evaluation") as raised:
        compare([runs.add("a")])
    assert raised.value.hint == "align-cache eval mlp-a"


@pytest.mark.parametrize(("text", "said"), [(None, "is missing"), ("seed =", "is not TOML")])
def test_a_damaged_config_is_refused_by_name(runs: Runs, text: str | None, said: str) -> None:
    run = runs.add("a", 0.1)
    (run.folder / "config.toml").unlink()
    if text is not None:
        (run.folder / "config.toml").write_text(text)
    with pytest.raises(RunError, match=rf"config\.toml {said}"):
        compare([run])


def test_paired_differences_are_of_common_seeds_with_an_interval_by_students_t(
    two_groups: Comparison,
) -> None:
    assert two_groups.paired is not None
    difference = two_groups.paired[R1]
    assert difference.n == 3
    assert difference.mean == pytest.approx(0.02)
    assert difference.interval is not None
    half = (
        4.302653 * 0.01 / math.sqrt(3)
    )  # t of 2 degrees of freedom; differences 0.01, 0.02, 0.03 have sd 0.01
    assert difference.interval == pytest.approx((0.02 - half, 0.02 + half))


@pytest.mark.parametrize(("seeds", "t"), [(2, 12.7062), (5, 2.7764), (10, 2.2622)])
def test_the_width_of_the_interval_is_that_of_the_table_of_t(runs: Runs, seeds: int, t: float) -> None:
    off = [runs.add(f"off{seed}", 0.0, seed=seed) for seed in range(seeds)]
    on = [runs.add(f"on{seed}", (-1.0) ** seed, seed=seed, config={"optim": {"lr": 1.0}})
          for seed in range(seeds)]  # fmt: skip
    paired = compare([*off, *on]).paired
    assert paired is not None
    low, high = paired[R1].interval or (0.0, 0.0)
    mean = sum((-1.0) ** seed for seed in range(seeds)) / seeds
    variance = sum(((-1.0) ** seed - mean) ** 2 for seed in range(seeds)) / (seeds - 1)
    assert (high - low) / 2 == pytest.approx(t * math.sqrt(variance / seeds), rel=1e-4)


def test_without_two_groups_that_share_a_seed_nothing_is_paired(runs: Runs) -> None:
    a, b = runs.add("a", 0.1), runs.add("b", 0.2, seed=1, config={"optim": {"lr": 1.0}})
    c = runs.add("c", 0.3, config={"optim": {"lr": 2.0}})
    assert compare([a, b]).paired is None
    assert compare([a, b, c]).paired is None
    one_seed = compare([a, c]).paired
    assert one_seed is not None
    assert (one_seed[R1].n, one_seed[R1].interval) == (1, None)


def test_a_number_that_some_runs_lack_says_of_how_many_it_is(runs: Runs) -> None:
    levels = [runs.add(f"s{seed}", 0.1, seed=seed, probe=probe(0.5) if seed else None) for seed in range(3)]
    compared = compare(levels)
    assert compared.groups[0].numbers["probe.cifar10.1.image_features.linear"].n == 2
    assert "modality_gap" not in str(compared.names)
    (table,) = [
        table for table in comparison_tables(compared) if table.title.startswith("Probe of cifar10.1")
    ]
    assert table.rows == (("1", "image features", "50.0 ± 0.0 (n = 2)"),)
    (loss,) = [table for table in comparison_tables(compared) if table.title == "Loss and spread"]
    assert loss.rows == (("1", "3.0000 ± 0.0000", "0.1000 ± 0.0000", "not measured"),)


def test_cosine_similarity_has_a_table_where_it_was_measured(runs: Runs) -> None:
    measured = {**evaluation(0.1)["embeddings"], "similarity": {"matched": 0.5, "unmatched": 0.25}}
    both = compare([runs.add("old", 0.1), runs.add("new", 0.1, seed=1, embeddings=measured)])
    (table,) = [table for table in comparison_tables(both) if table.title == "Cosine similarity"]
    assert table.columns == ("group", "matched pairs", "unmatched pairs")
    assert table.rows == (("1", "0.5000 (n = 1)", "0.2500 (n = 1)"),)
    assert words("similarity.matched") == ("cosine similarity", "matched pairs")
    before = compare([runs.add("older", 0.1)])
    assert not any(table.title == "Cosine similarity" for table in comparison_tables(before))


def test_a_probe_by_another_number_of_neighbours_is_another_column(runs: Runs) -> None:
    judged = {k: {"name": "classes", "rows": {"image_features": {"knn": {"accuracy": k / 100, "k": k}}}}
              for k in (5, 20)}  # fmt: skip
    compared = compare([runs.add(f"k{k}", 0.1, seed=k, probe=found) for k, found in judged.items()])
    (table,) = [table for table in comparison_tables(compared) if table.title.startswith("Probe of classes")]
    assert table.columns == ("group", "rows", "knn_k5", "knn_k20")
    assert table.rows == (("1", "image features", "5.0 (n = 1)", "20.0 (n = 1)"),)


def test_the_table_of_groups_shows_the_differing_settings_alone(two_groups: Comparison) -> None:
    table = comparison_tables(two_groups)[0]
    assert table.columns == ("group", "loss.matching", "seeds", "n")
    assert table.rows == (("1", "none", "0, 1, 2, 3", "4"), ("2", "true", "1, 2, 3", "3"))


def test_margins_say_in_how_many_runs_they_are_supported(runs: Runs) -> None:
    compared = compare([runs.add("a", 0.45), runs.add("b", 0.15, seed=1)])
    (table,) = [
        table for table in comparison_tables(compared) if table.title == "H1 and H2 under mutual k-NN"
    ]
    assert table.rows[0][:4] == ("1", "embeddings", "+0.0500 ± 0.2121", "1 of 2")
    assert "N = 1,000 images" in table.note
    assert "k = 10" in table.note


def rendered(renderable: object, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(renderable)
    return stream.getvalue()


def test_every_number_is_whole_at_eighty_columns_however_many_settings_differ(runs: Runs) -> None:
    many = {f"setting_{index}": "a long value" for index in range(12)}
    pair = [runs.add(f"a{seed}", 0.5 + 0.1 * seed, seed=seed) for seed in range(2)]
    compared = compare([*pair, runs.add("b", 0.3, config={"loss": many}, probe=probe(0.5))])
    lines = rendered(comparison_table(compared), 80).splitlines()
    assert max(map(len, lines)) <= 80
    cells = {cell for table in comparison_tables(compared)[1:] for row in table.rows for cell in row}
    assert all(any(cell in line for line in lines) for cell in cells)
    assert all(f"loss.{name}" in "".join(lines) for name in many)


def test_untrained_encoders_are_named_before_the_first_number_and_on_the_figure(runs: Runs) -> None:
    compared = compare([runs.add("a", 0.1, untrained=["resnet18"])])
    assert rendered(comparison_table(compared), 80).startswith("UNTRAINED encoders: resnet18")
    assert "UNTRAINED encoders: resnet18" in str(comparison_figure(compared).get_suptitle())


def test_the_csv_has_a_line_for_each_group_and_number(two_groups: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(two_groups.to_csv())))
    assert len(rows) == sum(len(group.numbers) for group in two_groups.groups)
    (row,) = [row for row in rows if row["group"] == "2" and row["number"] == R1]
    assert (row["loss.matching"], row["n"]) == ("True", "3")
    assert float(row["mean"]) == pytest.approx(0.32)
    assert float(row["sd"]) == pytest.approx(0.01)
    assert float(row["low"]) < 0.32 < float(row["high"])


def test_the_json_holds_every_run(two_groups: Comparison) -> None:
    record = json.loads(json.dumps(two_groups.to_record(), allow_nan=False))
    assert [len(group["runs"]) for group in record["groups"]] == [4, 3]
    assert record["groups"][1]["runs"][2]["numbers"][R1] == pytest.approx(0.33)
    assert record["paired"][R1]["n"] == 3
    assert record["shared"]["eval.k"] == 10


def test_the_figure_has_a_panel_a_number_and_a_dot_a_run(two_groups: Comparison) -> None:
    figure = comparison_figure(two_groups)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(panels) == len(two_groups.names)
    for axes in panels:
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [len(line.get_xdata()) for line in dots] == [4, 3]
    recall = next(axes for axes in panels if axes.get_title(loc="left") == "R@1, %")
    assert "test split, N = 1,000 images, 5,000 captions, k = 10, CKA unbiased" in figure.get_suptitle()
    ticks = [line.get_xdata()[0] for line in recall.lines if line.get_marker() == "|"]
    assert ticks == pytest.approx([30.0, 32.0])


def test_a_single_run_is_drawn_with_its_own_interval_and_says_so(runs: Runs) -> None:
    figure = comparison_figure(compare([runs.add("a", 0.3)]))
    assert "thin bar of a single run: its 95% interval over items" in figure.get_suptitle()
    assert "standard deviation" not in figure.get_suptitle()


def test_curves_have_a_panel_a_group_with_shared_axes_and_the_others_behind(two_groups: Comparison) -> None:
    figure = comparison_curves(two_groups)
    assert figure is not None
    losses = figure.axes[:2]
    assert losses[0].get_title(loc="left") == "Validation loss"
    assert losses[0].get_ylim() == losses[1].get_ylim()
    assert losses[0].get_xlim() == losses[1].get_xlim()
    for axes, runs_drawn in zip(losses, (4, 3), strict=True):
        colours = [line.get_color() for line in axes.lines]
        assert colours.count(GREY) == 1  # the mean of the other group
        assert len(colours) == 1 + runs_drawn + 1
        assert list(axes.lines[-1].get_ydata()) == [5.0, 4.0, 3.0]


def test_runs_of_different_length_have_a_mean_where_all_of_them_are(runs: Runs) -> None:
    short, long = runs.add("a", 0.1), runs.add("b", 0.2, seed=1)
    long.append_record({"kind": "epoch", "epoch": 3, "val": {"loss": 1.0}})
    figure = comparison_curves(compare([short, long]))
    assert figure is not None
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [3, 4, 3]


def test_runs_without_a_second_epoch_have_no_curves(runs: Runs) -> None:
    run = runs.add("a", 0.1)
    run.keep_records(through_epoch=0)
    compared = compare([run])
    assert comparison_curves(compared) is None
    assert "after each epoch: not measured." in comparison_page(compared)


def test_the_page_needs_nothing_outside_itself_and_holds_every_number(two_groups: Comparison) -> None:
    page = comparison_page(two_groups)
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert sum(link.startswith("data:") for link in links) == 2
    anchors = [link for link in links if link.startswith("#")]
    assert [anchor for anchor in anchors if f'<section id="{anchor[1:]}">' not in page] == []
    numbers = page[page.index('id="numbers"') :]
    for group in two_groups.groups:
        for name in group.numbers:
            assert escape(" · ".join(words(name))) in numbers
    assert "0, 1, 2, 3" in page
    assert "test split, N = 1,000 images, 5,000 captions" in page


def test_words_of_a_run_never_become_markup_on_the_page(runs: Runs) -> None:
    hostile = "<script>alert('x')</script>"
    settings = {"loss": {"kind": hostile}, "data": {"dataset": hostile}}
    first = runs.add("a", 0.1, config=settings, untrained=[hostile])
    left_out = runs.add("b", info={"error": hostile, "status": "failed"})
    page = comparison_page(compare([first, runs.add("c", 0.2), left_out]))
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") >= 4


def test_untrained_encoders_are_named_on_the_page_and_in_its_pictures(runs: Runs) -> None:
    compared = compare([runs.add("a", 0.1, untrained=["resnet18"])])
    page = comparison_page(compared)
    assert page.index("UNTRAINED: resnet18") < page.index("<table")
    curves = comparison_curves(compared)
    assert curves is not None
    for figure in (curves, comparison_figure(compared, named=False)):
        assert "UNTRAINED encoders: resnet18" in figure.get_suptitle()


def test_a_number_that_a_group_lacks_is_said_to_be_not_measured(runs: Runs, tmp_path: Path) -> None:
    compared = compare([runs.add("a", 0.1), runs.add("b", 0.1, config={"loss": {"x": 1}}, probe=probe(0.5))])
    figure = comparison_figure(compared)
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words.count("not measured") == 1
    assert draw_comparison(compared, tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_tables_json_or_csv(
    runs: Runs, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = runs.add("a", 0.1)
    runs.add("b", 0.2, seed=1)
    at = ["--cache-dir", str(cache_dir)]
    assert main(["compare", str(first.folder), "latest", *at]) == 0
    assert "15.0 ± 7.1" in capsys.readouterr().out
    assert main(["compare", "mlp-a", "mlp-b", "--json", *at]) == 0
    assert json.loads(capsys.readouterr().out)["groups"][0]["numbers"][R1]["n"] == 2
    assert main(["compare", "mlp-a", "--csv", "-", *at]) == 0
    assert capsys.readouterr().out == compare([first]).to_csv()
    table, figure, page = cache_dir / "table.csv", cache_dir / "figure.png", cache_dir / "page.html"
    files = ["--csv", str(table), "--figure", str(figure), "--html", str(page)]
    assert main(["compare", "mlp-a", *files, *at]) == 0
    out, err = capsys.readouterr()
    assert "Retrieval" in out
    assert str(figure) in err.replace("\n", "")
    assert table.read_text() == compare([first]).to_csv()
    assert figure.exists()
    assert page.read_text() == comparison_page(compare([first]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--csv", "-", "--json"], "both write to stdout"),
        (["--figure", "figure.pdf"], "the figure is a PNG"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_exit_2(
    options: list[str], said: str, runs: Runs, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.add("a", 0.1)
    assert main(["compare", "latest", *options, "--cache-dir", str(cache_dir)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_the_list_of_runs_has_recall_seed_and_encoders_and_ids_that_can_be_copied(
    runs: Runs, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained = {"encoder": "small-cnn", "key8": "0", "untrained": True}
    listed = [
        runs.add("20260101-000000-abcd", 0.1, 0.25, seed=7),
        runs.add("20260101-000000-ef01", info={"image": untrained, "reference": None, "status": "failed"}),
    ]
    assert main(["runs", "ls", "--json", "--cache-dir", str(cache_dir)]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["recall_at_1"] for entry in entries] == [
        {"image_to_text": 0.25, "text_to_image": 0.25},
        None,
    ]
    assert entries[0].items() >= {**listed[0].info(), "folder": str(listed[0].folder)}.items()
    for width in (80, 120):
        shown = rendered(runs_table([list_entry(run) for run in listed]), width)
        assert all(run.id in shown for run in listed)
        assert "25.0%" in shown
    assert "shapes: small-cnn*, resnet18 → none" in shown


def test_the_results_page_words_a_finding_as_the_intervals_are(two_groups: Comparison) -> None:
    (effect,) = effects(two_groups)
    assert "moved nothing that the seeds can tell. 0 of 23 intervals exclude zero" in effect


def test_comparing_loads_no_torch() -> None:
    program = (
        "import sys\n"
        "import align_cache.reporting.comparison_figure\n"
        "from align_cache import compare\n"
        "print([name for name in ('torch', 'matplotlib.pyplot', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
