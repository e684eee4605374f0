"""The report of a sweep: seeds averaged, axes laid out, importance, a page that stands alone."""

import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from align_cache.cli import main
from align_cache.errors import RunError
from align_cache.reporting import report_sweep, sweep_importance
from align_cache.reporting.sweep_axes import FEW, axis
from align_cache.reporting.sweep_coordinates import n_strong, parallel_coordinates
from align_cache.reporting.sweep_data import read_sweep
from align_cache.reporting.sweep_effects import BINS, marginal_figure, marginals
from align_cache.reporting.sweep_history import best_so_far
from align_cache.reporting.sweep_importance import LEAST, Importance, importance, permutation_importance
from align_cache.reporting.sweep_tables import (
    SHOWN,
    alignment_table,
    configuration_table,
    failed_table,
    marginal_table,
    run_table,
)
from align_cache.results import list_runs
from align_cache.sweeps.records import trials_of
from tests.unit.stored import paired_sets
from tests.unit.swept import HOSTILE, fabricate
from tests.unit.test_fit import TOY

Points = list[dict[str, Any]]


@pytest.fixture
def quick_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees, so that a page takes a second."""
    monkeypatch.setattr(sweep_importance, "TREES", 8)
    monkeypatch.setattr(sweep_importance, "REPEATS", 2)


def grid(**values: list[Any]) -> Points:
    keys = [key.replace("__", ".") for key in values]
    return [dict(zip(keys, point, strict=True)) for point in itertools.product(*values.values())]


WIDE = grid(adapter__type=["linear", "mlp"], loss__temperature=[0.03, 0.07, 0.3], optim__lr=[1e-4, 1e-3])
SEEDED = grid(optim__lr=[1e-4, 1e-3], seed=[0, 1, 2])


def test_trials_that_differ_in_their_seed_alone_are_one_configuration(cache_dir: Path) -> None:
    folder = fabricate(cache_dir, SEEDED)
    sweep = read_sweep(folder)
    assert sweep.varying == ("optim.lr",)
    assert [len(each.trials) for each in sweep.configurations] == [3, 3]
    best = sweep.configurations[0]
    expected = [
        t.scores["mean_recall"] for t in trials_of(folder) if t.values["optim.lr"] == best.values["optim.lr"]
    ]
    assert best.mean("mean_recall") == pytest.approx(fmean(expected))
    assert best.sd("mean_recall") == pytest.approx(stdev(expected))
    spreads = [each.sd("mean_recall") or 0.0 for each in sweep.configurations]
    assert sweep.seed_sd == pytest.approx(np.sqrt(np.mean(np.square(spreads))))
    assert sweep.best is not None
    assert sweep.best.record.scores["mean_recall"] == max(expected)
    table = configuration_table(sweep)
    assert table.columns[:4] == ("#", "mean recall, %", "optim.lr", "n")
    assert table.rows[0][1] == f"{100 * fmean(expected):.1f} ± {100 * stdev(expected):.1f}"
    assert "over n seeds" in table.note
    assert "N = 200 images, 1,000 captions" in table.note
    runs = run_table(sweep)
    assert {row[runs.columns.index("seed")] for row in runs.rows} == {"0", "1", "2"}


def test_the_same_points_under_other_shared_settings_are_not_further_seeds(cache_dir: Path) -> None:
    points = grid(optim__lr=[1e-4, 1e-3])
    fabricate(cache_dir, points, shared={"optim.epochs": 5})
    folder = fabricate(cache_dir, points, shared={"optim.epochs": 9}, seed=1)
    sweep = read_sweep(folder)
    assert sweep.varying == ("optim.lr", "optim.epochs")
    assert len(sweep.configurations) == 4


def test_features_extracted_anew_make_another_configuration(cache_dir: Path) -> None:
    points = grid(optim__lr=[1e-4, 1e-3])
    fabricate(cache_dir, points)
    for run in list_runs(cache_dir):
        run.update(image={"encoder": "image", "key8": "1" * 8})
    sweep = read_sweep(fabricate(cache_dir, points, seed=1))
    assert sweep.varying == ("optim.lr", "features.image")
    assert len(sweep.configurations) == 4


def test_what_a_preset_brings_along_is_no_setting_of_its_own(cache_dir: Path) -> None:
    sweep = read_sweep(fabricate(cache_dir, grid(adapter__type=["linear", "mlp"], optim__lr=[1e-4, 1e-3])))
    assert sweep.varying == ("adapter.type", "optim.lr")


def test_a_setting_that_was_added_later_has_its_resolved_value_in_the_trials_before(cache_dir: Path) -> None:
    fabricate(cache_dir, grid(optim__lr=[1e-4, 1e-3]))
    folder = fabricate(cache_dir, grid(optim__lr=[1e-4], loss__temperature=[0.07, 0.2]), seed=1)
    sweep = read_sweep(folder)
    assert sweep.varying == ("optim.lr", "loss.temperature")
    found = {tuple(each.values.values()): len(each.trials) for each in sweep.configurations}
    assert found == {(1e-4, 0.2): 2, (1e-3, 0.2): 1, (1e-4, 0.07): 1}  # 0.2 is the default


@pytest.mark.parametrize(
    ("values", "kind", "positions"),
    [
        ([1e-4, 1e-3, 1e-2], "log", [0, 0.5, 1]),
        ([128, 256, 512], "linear", [0, 1 / 3, 1]),
        ([1, 5, 10], "linear", [0, 4 / 9, 1]),
        ([0.0, 1e-4, 1e-2], "even", [1 / 6, 0.5, 5 / 6]),
        ([3e-4, 3e-3, 1e30], "even", [1 / 6, 0.5, 5 / 6]),
        ([None, 0.5, 1.0], "even", [1 / 6, 0.5, 5 / 6]),
        (["mlp", "linear"], "even", [0.75, 0.25]),
        ([False, True], "even", [0.25, 0.75]),
        ([[1024, 1024], [512]], "even", [0.25, 0.75]),
        ([2, 2], "even", [0.5, 0.5]),
    ],
)
def test_an_axis_suits_its_values(values: list[Any], kind: str, positions: list[float]) -> None:
    laid = axis("x", values)
    assert laid.kind == kind
    assert [laid.position(value) for value in values] == pytest.approx(positions)
    assert len(laid.ticks()) == len(laid.values)


def test_numbers_drawn_evenly_lie_on_a_linear_axis_and_such_with_even_logarithm_on_a_logarithmic_one() -> (
    None
):
    drawn = np.random.default_rng(0).uniform(size=50)
    linear, log = axis("x", (drawn / 2).tolist()), axis("x", (10 ** (4 * drawn - 5)).tolist())
    assert (linear.kind, log.kind) == ("linear", "log")
    for laid in (linear, log):
        places = [at for at, _ in laid.ticks()]
        assert 2 <= len(places) <= FEW
        assert min(places) >= 0
        assert max(places) <= 1


def test_importance_is_what_replacing_a_setting_adds_to_the_error() -> None:
    generator = np.random.default_rng(0)
    places = generator.uniform(size=(150, 3))
    added, explained = permutation_importance(places, places[:, 0])
    assert added.shape == (sweep_importance.REPEATS, 3)
    # a score that is the setting itself: another draw of it is off by twice the variance on average
    assert added.mean(axis=0)[0] == pytest.approx(2.0, rel=0.15)
    assert np.abs(added.mean(axis=0)[1:]).max() < 0.02
    assert explained > 0.98


def test_importance_knows_settings_that_matter_only_together_and_noise(quick_forest: None) -> None:
    generator = np.random.default_rng(1)
    places = generator.integers(2, size=(80, 3)).astype(float)
    either = np.where(places[:, 0] == places[:, 1], 1.0, 0.0)
    added, explained = permutation_importance(places, either)
    assert added.mean(axis=0)[:2].min() > 1
    assert abs(added.mean(axis=0)[2]) < 0.1
    assert explained > 0.9
    _, nothing = permutation_importance(places, generator.normal(size=80))
    assert nothing < 0.1


def test_importance_of_a_sweep_finds_what_was_planted_and_says_the_same_twice(
    cache_dir: Path, quick_forest: None
) -> None:
    points = grid(optim__lr=[1e-5, 1e-4, 1e-3, 1e-2], adapter__dropout=[0.0, 0.2, 0.4], seed=[0, 1])
    sweep = read_sweep(fabricate(cache_dir, points))
    found = importance(sweep)
    assert isinstance(found, Importance)
    assert found.keys == ("optim.lr", "adapter.dropout")
    assert found.n == 12  # seeds are averaged, and are no setting
    assert found.mean[0] > 0.5 > 0.2 > found.mean[1]
    assert importance(sweep) == found


def test_where_importance_cannot_be_measured_the_reason_is_given(cache_dir: Path) -> None:
    few = read_sweep(fabricate(cache_dir, WIDE[: LEAST - 1], name="few"))
    one = read_sweep(fabricate(cache_dir, SEEDED, name="one"))
    none = read_sweep(fabricate(cache_dir, grid(seed=[0, 1]), name="nothing"))
    assert importance(few) == f"{LEAST - 1} finished configurations are too few for it; it takes {LEAST}"
    assert importance(one) == "1 setting varies: there is nothing to weigh against another"
    assert importance(none) == "no setting varies: there is nothing to weigh against another"


def test_each_value_has_the_mean_of_the_configurations_that_have_it(cache_dir: Path) -> None:
    folder = fabricate(cache_dir, [*WIDE, {**WIDE[0], "optim.lr": 10.0}])
    found = marginals(read_sweep(folder), "optim.lr")
    assert [each.label for each in found[:2]] == ["0.0001", "0.001"]
    for each in found[:2]:
        scores = [
            t.scores["mean_recall"] for t in trials_of(folder) if f"{t.values['optim.lr']:g}" == each.label
        ]
        assert each.mean == pytest.approx(fmean(scores))
        assert each.sd == pytest.approx(stdev(scores))
        assert each.scores[0] == max(scores)
        assert each.failed == 0
    table = marginal_table(read_sweep(folder))
    assert [row[:3] for row in table.rows[:2]] == [
        ("adapter.type", "linear", "6"),
        ("adapter.type", "mlp", "6"),
    ]
    assert table.rows[0][-1] == "1"  # the trial that failed was linear


def test_many_values_are_cut_into_ranges_that_hold_every_configuration_once(cache_dir: Path) -> None:
    rates = (10 ** np.random.default_rng(0).uniform(-5, -2, 33)).tolist()
    sweep = read_sweep(fabricate(cache_dir, grid(optim__lr=rates)))
    found = marginals(sweep, "optim.lr")
    assert len(found) == BINS
    assert sum(len(each.scores) for each in found) == 33
    assert [each.position for each in found] == sorted(each.position for each in found)
    assert all(" … " in each.label for each in found)


@pytest.mark.parametrize("rank_by", ["mean_recall", "val_loss"])
def test_every_configuration_is_a_line_and_the_best_are_drawn_last_and_thicker(
    cache_dir: Path, rank_by: Any
) -> None:
    sweep = read_sweep(fabricate(cache_dir, WIDE, rank_by=rank_by))
    figure = parallel_coordinates(sweep)
    assert figure is not None
    (lines,) = [child for child in figure.axes[0].get_children() if isinstance(child, LineCollection)]
    segments = np.stack([np.asarray(segment) for segment in lines.get_segments()])
    assert len(segments) == len(sweep.configurations) == 12
    assert segments[:, -1, 1] == pytest.approx(np.sort(segments[:, -1, 1]))  # the best ends on top, the last
    assert segments[-1, -1, 1] == pytest.approx(1.0)
    widths = np.asarray(lines.get_linewidths())
    assert [n_strong(n) for n in (1, 3, 12, 48)] == [1, 1, 3, 5]
    assert (widths[-3:] > widths[:-3].max()).all()
    for place in range(len(sweep.varying)):  # no two lines cross an axis at one point
        crossing = [float(segment[np.argmin(np.abs(segment[:, 0] - place)), 1]) for segment in segments]
        assert len({round(height, 6) for height in crossing}) == 12


def test_the_best_so_far_never_gets_worse(cache_dir: Path) -> None:
    for rank_by, better in (("mean_recall", max), ("val_loss", min)):
        sweep = read_sweep(fabricate(cache_dir, WIDE, name=rank_by, rank_by=rank_by))  # type: ignore[arg-type]
        figure = best_so_far(sweep)
        assert figure is not None
        line = next(line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post")
        heights = np.asarray(line.get_ydata(), dtype=float)
        scores = [t.record.scores[rank_by] * (100 if rank_by == "mean_recall" else 1) for t in sweep.trials]
        assert heights[:-1] == pytest.approx([better(scores[: n + 1]) for n in range(len(scores))])


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_holds_every_trial(cache_dir: Path, quick_forest: None) -> None:
    failing = [{**WIDE[0], "optim.lr": 10.0}]
    folder = fabricate(cache_dir, [*WIDE, *failing], untrained=True)
    told: list[tuple[int, int]] = []
    path = report_sweep(folder, on_progress=lambda done, total: told.append((done, total)))
    assert path == folder / "report.html"
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    drawn = {file.stem for file in (folder / "figures").iterdir()}
    assert drawn == {"parallel-coordinates", "importance", "marginals", "best-so-far"}
    page = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert not [tag for tag, _ in tags.seen if tag in ("script", "link", "iframe", "object")]
    sources = [found["src"] or "" for tag, found in tags.seen if tag == "img"]
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert HOSTILE not in page
    words = re.sub(r'src="data:[^"]*"', "", page)
    for expected in (
        *("UNTRAINED: image", "12 of 13", "N = 200 images", "k = 10", "one seed each", "chance 2.6%"),
        *("the loss is nan", "--retry-failed", "seed is no setting", "all 12 configurations"),
    ):
        assert expected in words, expected
    for trial in trials_of(folder):
        assert trial.run is not None
        assert trial.run in words


def test_long_tables_are_folded_and_short_ones_are_not(cache_dir: Path, quick_forest: None) -> None:
    assert len(WIDE) > SHOWN
    page = report_sweep(fabricate(cache_dir, WIDE)).read_text(encoding="utf-8")
    assert "all 12 configurations" in page
    short = report_sweep(fabricate(cache_dir, SEEDED, name="short")).read_text(encoding="utf-8")
    assert "all 2 configurations" not in short
    assert "the 6 single runs" in short
    assert "not measured; 1 setting varies" in short


def test_a_ranking_by_losses_of_different_scales_is_called_that(cache_dir: Path, quick_forest: None) -> None:
    warned = report_sweep(fabricate(cache_dir, WIDE, rank_by="val_loss")).read_text(encoding="utf-8")
    assert "on different scales" in warned
    fine = report_sweep(fabricate(cache_dir, SEEDED, name="fine", rank_by="val_loss")).read_text(
        encoding="utf-8"
    )
    assert "on different scales" not in fine


def test_alignment_is_shown_as_it_was_measured_with_n_and_k(cache_dir: Path) -> None:
    table = alignment_table(read_sweep(fabricate(cache_dir, SEEDED)))
    assert table is not None
    assert table.columns == ("#", "mutual k-NN, aligned–ref", "H1, mutual k-NN", "H2, mutual k-NN",
                             "CKA, aligned–ref", "H1, CKA", "H2, CKA")  # fmt: skip
    assert table.rows[0][3] == "−0.040 ± 0.000"
    assert "N = 200 images, k = 10" in table.note


def test_a_sweep_whose_runs_are_gone_is_reported_from_its_trials(cache_dir: Path, quick_forest: None) -> None:
    folder = fabricate(cache_dir, WIDE)
    for run in list_runs(cache_dir):
        (run.folder / "run.json").unlink()
    page = report_sweep(folder).read_text(encoding="utf-8")
    assert "N not measured: the runs are gone" in page
    assert len(read_sweep(folder).configurations) == 12


def test_a_sweep_of_which_nothing_finished_shows_its_errors(cache_dir: Path) -> None:
    folder = fabricate(cache_dir, grid(optim__lr=[1.0, 10.0]))
    assert "None has finished" in report_sweep(folder).read_text(encoding="utf-8")
    assert not (folder / "figures").exists()
    table = failed_table(read_sweep(folder))
    assert table is not None
    assert len(table.rows) == 2


def test_figures_of_an_earlier_report_do_not_stay_where_they_are_no_longer_drawn(cache_dir: Path) -> None:
    folder = fabricate(cache_dir, SEEDED)
    stale = folder / "figures" / "importance.png"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    report_sweep(folder)
    assert not stale.exists()


def test_a_folder_that_is_no_sweep_or_a_damaged_one_is_refused(cache_dir: Path) -> None:
    folder = cache_dir / "sweeps" / "empty"
    folder.mkdir(parents=True)
    with pytest.raises(RunError, match="no trial that has ended"):
        report_sweep(folder)
    whole = fabricate(cache_dir, SEEDED)
    (whole / "sweep.toml").write_text("rank_by = ")
    with pytest.raises(RunError, match=r"sweep\.toml"):
        report_sweep(whole)


def test_marginals_and_coordinates_are_not_drawn_where_nothing_varies(cache_dir: Path) -> None:
    sweep = read_sweep(fabricate(cache_dir, grid(seed=[0, 1])))
    assert parallel_coordinates(sweep) is None
    assert marginal_figure(sweep) is None
    assert "nothing but the seed" in report_sweep(sweep.folder).read_text(encoding="utf-8")


def test_reporting_a_sweep_loads_no_torch(cache_dir: Path) -> None:
    folder = fabricate(cache_dir, SEEDED)
    code = (
        "import sys; from pathlib import Path; from align_cache.reporting import report_sweep;"
        f" report_sweep(Path({str(folder)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_sweep_command_ends_with_the_page_and_report_draws_it_again(
    cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paired_sets(cache_dir)
    file = tmp_path / "small.toml"
    settings = [f"--set={key}={value}" for key, value in TOY.items() if key != "optim.epochs"]
    file.write_text('[grid]\n"loss.temperature" = [0.1, 0.3]\n[optim]\nepochs = 2\n[sweep]\ntogether = 2\n')
    place = ["--cache-dir", str(cache_dir)]
    command = ["sweep", "--config", str(file), *settings, *place]
    assert main([*command, "--no-figures"]) == 0
    folder = cache_dir / "sweeps" / "small"
    assert not (folder / "report.html").exists()
    assert main(command) == 0
    assert "report.html" in capsys.readouterr().err.replace("\n", "")
    assert "N = 12 images, 36 captions" in (folder / "report.html").read_text(encoding="utf-8")
    (folder / "report.html").unlink()
    assert main(["report", str(folder), "--json", *place]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(folder / "report.html")
    assert (folder / "report.html").exists()
    assert main(["report", str(folder), "--perplexity", "5", *place]) == 2
