"""Studies: what is compared with what, against hand-worked numbers and scipy; resuming; failed runs."""

import json
import math
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from align_cache.cli import main
from align_cache.errors import ConfigError, RunError, UsageError
from align_cache.judging.evaluation import evaluate
from align_cache.metrics.retrieval import retrieval
from align_cache.reporting.study_build import report_study, study_record
from align_cache.reporting.study_figures import differences_figure, levels_figure
from align_cache.reporting.study_words import findings
from align_cache.results import find_run, list_runs, read_lines
from align_cache.settings import EvalConfig, StudyConfig, study_config
from align_cache.studies.judging import image_scores
from align_cache.studies.results import Failure, Study
from align_cache.studies.studying import study
from tests.unit.stored import paired_sets
from tests.unit.studied import METRICS, drawn, made_up, trial
from tests.unit.test_fit import TOY

BASE = {**TOY, "precision": "fp32", "optim.epochs": 2}
GRID = {"loss.temperature": [0.1, 0.5], "data.num_samples": [16, 32], "seed": [0, 1]}


def toy_study(**given: Any) -> StudyConfig:
    own = {"factor": "loss.temperature", "baseline": 0.1, "together": 4, "base": BASE, "grid": GRID}
    return StudyConfig(**{**own, **given})


# --- what is compared with what


def constant(table: list[list[list[float]]]) -> Study:
    """Recalls by condition, level and seed, the same for all images."""
    places = product(range(len(table)), range(len(table[0])), range(len(table[0][0])))
    return made_up({(c, level, s): trial(table[c][level][s]) for c, level, s in places})


BY_HAND = [[[0.10, 0.20, 0.30], [0.12, 0.21, 0.33]], [[0.50, 0.60, 0.70], [0.54, 0.60, 0.71]]]


def test_a_mean_and_its_deviation_are_over_seeds() -> None:
    found = constant(BY_HAND).spread("mean_recall", 0, 0)
    assert found is not None
    assert (found.mean, found.sd, found.n) == (pytest.approx(0.2), pytest.approx(0.1), 3)


def test_a_difference_is_paired_by_seed_as_scipy_does_it() -> None:
    found = constant(BY_HAND).difference("i2t_r1", 0, 1)
    expected = stats.ttest_rel(BY_HAND[0][1], BY_HAND[0][0]).confidence_interval(0.95)
    assert found is not None
    assert found.mean == pytest.approx(0.02)  # of 0.02, 0.01, 0.03
    assert found.interval == pytest.approx((expected.low, expected.high))
    # by hand: sd 0.01, t of 2 degrees of freedom 4.3027
    assert found.interval == pytest.approx(
        (0.02 - 4.3027 * 0.01 / 3**0.5, 0.02 + 4.3027 * 0.01 / 3**0.5), abs=1e-6
    )


def test_pooled_the_seeds_are_counted_and_not_the_runs() -> None:
    found = constant(BY_HAND).overall("t2i_r10", 1)
    of_seeds = [(0.02 + 0.04) / 2, (0.01 + 0.00) / 2, (0.03 + 0.01) / 2]
    expected = stats.ttest_1samp(of_seeds, 0).confidence_interval(0.95)
    assert found is not None
    assert found.difference.n == 3
    assert found.difference.mean == pytest.approx(np.mean(of_seeds))
    assert found.difference.interval == pytest.approx((expected.low, expected.high))
    assert found.image_error == pytest.approx(0, abs=1e-12)
    assert found.wide_interval == pytest.approx(found.difference.interval)


def test_a_run_that_is_missing_leaves_its_pair_out_and_its_seed_where_conditions_are_pooled() -> None:
    whole = constant(BY_HAND)
    left = made_up({place: each for place, each in whole.trials.items() if place != (0, 0, 2)})
    spread, difference, overall = (
        left.spread("i2t_r1", 0, 0), left.difference("i2t_r1", 0, 1), left.overall("i2t_r1", 1)
    )  # fmt: skip
    assert spread is not None
    assert difference is not None
    assert overall is not None
    assert (spread.n, difference.n, overall.difference.n) == (2, 2, 2)
    assert difference.mean == pytest.approx(0.015)
    assert overall.difference.mean == pytest.approx((0.03 + 0.005) / 2)
    one = made_up({place: each for place, each in whole.trials.items() if place[2] == 0 and place[0] == 0})
    only = one.difference("i2t_r1", 0, 1)
    assert only is not None
    assert (only.n, only.interval) == (1, None)
    assert one.spread("i2t_r1", 1, 0) is None
    assert one.difference("i2t_r1", 1, 1) is None
    assert one.overall("i2t_r1", 1) is None
    assert one.tally().n == 0


def test_the_error_over_images_is_that_of_their_paired_differences() -> None:
    base, better = [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]
    trials = {(c, level, s): trial([base, better][level], images="a")
              for c, level, s in product(range(2), range(2), range(3))}  # fmt: skip
    gains = np.array([0.0, 1.0, 0.0, 0.0])  # the same under both conditions: they do not average out
    error = gains.std(ddof=1) / 4**0.5
    same = made_up(trials).overall("i2t_r1", 1)
    assert same is not None
    assert same.image_error == pytest.approx(error)
    assert same.difference.interval == pytest.approx((0.25, 0.25))  # every seed says the same
    assert same.wide_interval == pytest.approx((0.25 - 1.959964 * error, 0.25 + 1.959964 * error))
    assert same.verdict == "better here"
    others = {place: trial([base, better][place[1]], images="ab"[place[0]]) for place in trials}
    apart = made_up(others).overall("i2t_r1", 1)
    assert apart is not None
    assert apart.image_error == pytest.approx(error / 2**0.5)  # other images are drawn by themselves


@pytest.mark.parametrize(
    ("gains", "spread", "verdict"),
    [
        ([0.02, 0.021, 0.022], 0.0, "better"),
        ([-0.02, -0.021, -0.022], 0.0, "worse"),
        ([0.02, 0.021, 0.022], 0.5, "better here"),
        ([-0.02, -0.021, -0.022], 0.5, "worse here"),
        ([0.02, -0.02, 0.01], 0.0, "none shown"),
        ([0.0, 0.0, 0.0], 0.0, "none shown"),
        ([0.02], 0.0, "none shown"),
    ],
)
def test_a_verdict_says_no_more_than_the_intervals(gains: list[float], spread: float, verdict: str) -> None:
    tilt = spread * np.array([-1, -1, 1, 1])
    trials = {}
    for seed, gain in enumerate(gains):
        trials[0, 0, seed] = trial([0.3, 0.3, 0.3, 0.3])
        trials[0, 1, seed] = trial((0.3 + gain + tilt).tolist())
    found = made_up(trials, conditions=({},), seeds=range(len(gains))).overall("mean_recall", 1)
    assert found is not None
    assert found.verdict == verdict


def test_intervals_that_exclude_zero_are_counted_by_side() -> None:
    table = [[[0.1, 0.2, 0.3], [0.15, 0.251, 0.352]], [[0.5, 0.6, 0.7], [0.45, 0.549, 0.648]]]
    tally = constant(table).tally()
    assert (tally.n, tally.above, tally.below) == (2 * len(METRICS), len(METRICS), len(METRICS))
    assert tally.by_chance == pytest.approx(0.7)
    pooled = constant(table).overall_tally()
    assert (pooled.n, pooled.above + pooled.below) == (len(METRICS), 0)


def test_without_an_effect_about_five_in_a_hundred_intervals_exclude_zero() -> None:
    generator = np.random.default_rng(3)
    n = 400
    trials = {(c, level, s): trial(float(0.3 + 0.02 * generator.standard_normal()))
              for c, level, s in product(range(n), range(2), range(5))}  # fmt: skip
    conditions = [{"data.num_samples": place} for place in range(n)]
    tally = made_up(trials, conditions=conditions, seeds=range(5), metrics=("i2t_r1",)).tally()
    assert 8 <= tally.above + tally.below <= 34  # 20 expected, deviation 4.4


def test_what_images_contribute_has_the_recalls_as_its_mean_and_their_error_in_clusters() -> None:
    generator = np.random.default_rng(1)
    counts = np.array([1, 3, 2, 5, 1, 4, 2])
    owner = np.repeat(np.arange(len(counts)), counts)
    images = torch.nn.functional.normalize(torch.tensor(generator.standard_normal((7, 3))), dim=1)
    texts = torch.nn.functional.normalize(torch.tensor(generator.standard_normal((18, 3))), dim=1)
    found = retrieval(images, texts, owner)
    scores = image_scores(found, owner)
    ways = (found.image_to_text, found.text_to_image)
    assert scores.mean(axis=0) == pytest.approx([recall for way in ways for recall in way.recall.values()])
    for column, k in enumerate((1, 5, 10)):
        np.testing.assert_array_equal(scores[:, column], found.image_to_text.ranks <= k)
        hits = np.array([(found.text_to_image.ranks[owner == i] <= k).sum() for i in range(7)])
        excess = hits - found.text_to_image.recall[k] * counts
        assert scores[:, 3 + column].std() / 7**0.5 == pytest.approx(math.sqrt(excess @ excess) / 18)


# --- settings


def test_a_file_of_a_study_is_read_with_its_shared_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[study]\nfactor = "loss.temperature"\nbaseline = 0.1\n[grid]\nseed = [0, 1]\n'
        "[grid.loss]\ntemperature = [0.1, 0.2]\n[optim]\nlr = 1e-3\n"
    )
    config = study_config(file, assignments=("optim.epochs=3",), flags={"jobs": 1, "name": None})
    assert (config.name, config.split, config.jobs, config.levels) == ("mine", "test", 1, [0.1, 0.2])
    assert config.metrics == METRICS
    assert config.sweep.base == {"optim": {"lr": 1e-3, "epochs": 3}}
    assert config.sweep.grid == {"seed": [0, 1], "loss.temperature": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"factor": "seed"}, "the seeds are what"),
        ({"factor": "loss.schedul"}, "expected two values"),
        ({"baseline": 0.2}, r"baseline = 0\.2: expected one of"),
        ({"grid": {"loss.temperature": [0.1, 0.5], "seed": [0]}}, "grid: seed"),
        ({"grid": {"loss.temperature": 0.1, "seed": [0, 1]}}, "expected a list"),
        ({"grid": {"loss.temperature": [0.1, 0.1], "seed": [0, 1]}}, "each value once"),
        ({"metrics": ["mrr"]}, "metrics"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        toy_study(**given)


def test_a_study_has_no_random_points(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[study]\nfactor = "optim.lr"\n[random]\n"optim.lr" = [1e-3]\n')
    with pytest.raises(ConfigError, match=r"\[random\] is for sweeps"):
        study_config(file)


def test_what_cannot_be_judged_is_refused_before_any_run(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    with pytest.raises(UsageError, match="has no nothing images"):
        study(toy_study(split="nothing"), cache_dir=cache_dir)
    same = {**GRID, "data.num_samples": [16, "16"]}
    with pytest.raises(ConfigError, match="8 points and only 4 different runs"):
        study(toy_study(grid=same), cache_dir=cache_dir)
    assert list_runs(cache_dir) == []


# --- a study on disk


def test_a_study_judges_its_runs_as_eval_does_and_goes_on_where_it_stands(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    judged: list[tuple[int, int]] = []
    found = study(toy_study(), cache_dir=cache_dir, on_judged=lambda *done: judged.append(done))
    assert judged[-1] == (8, 8)
    assert (found.failed, found.sizes, list(found.seeds)) == ([], [(12, 36)], [0, 1])
    assert found.conditions == [{"data.num_samples": 16}, {"data.num_samples": 32}]
    for (condition, level, seed), each in found.trials.items():
        run = find_run(each.run, cache_dir=cache_dir)
        config = run.config()
        assert config["loss"]["temperature"] == found.levels[level]
        assert config["data"]["num_samples"] == found.conditions[condition]["data.num_samples"]
        assert config["seed"] == found.seeds[seed]
        expected = evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)["embeddings"]["retrieval"]
        recalls = [expected[way][f"r{k}"] for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
        assert each.scores.mean(axis=0) == pytest.approx(recalls)

    kept, lines = list_runs(cache_dir), cache_dir / "studies" / "study" / "judged.jsonl"
    before = read_lines(lines)
    again = study(toy_study(), cache_dir=cache_dir)
    assert (list_runs(cache_dir), read_lines(lines)) == (kept, before)
    assert study_record(again) == study_record(found)
    wider = study(toy_study(grid={**GRID, "seed": [0, 1, 2]}), cache_dir=cache_dir)
    assert len(list_runs(cache_dir)) == len(kept) + 4
    assert read_lines(lines)[:8] == before
    assert len(wider.trials) == len(read_lines(lines)) == 12
    study(toy_study(split="val"), cache_dir=cache_dir)
    assert [line["split"] for line in read_lines(lines)[12:]] == ["val"] * 8


def test_a_judgement_that_a_kill_cut_short_is_made_again(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    whole = study_record(study(toy_study(), cache_dir=cache_dir))
    lines = cache_dir / "studies" / "study" / "judged.jsonl"
    lines.write_bytes(lines.read_bytes()[:-40])
    assert study_record(study(toy_study(), cache_dir=cache_dir)) == whole
    assert len(read_lines(lines)) == 8


def test_failed_runs_are_counted_and_a_study_of_nothing_else_is_refused(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    grid = {"optim.lr": [1e-2, 1e30], "seed": [0, 1]}
    base = {**BASE, "optim.clip_grad_norm": "none"}
    config = toy_study(factor="optim.lr", baseline=1e-2, grid=grid, base=base)
    found = study(config, cache_dir=cache_dir)
    assert [failure.values["optim.lr"] for failure in found.failed] == [1e30, 1e30]
    said = " ".join(findings(found))
    assert "2 of 4 runs failed and are in no number" in said
    assert "1e+30 against 0.01: not measured" in said
    levels = report_study(found, cache_dir / "studies" / "study").read_text()
    assert "the loss is" in levels
    hopeless = toy_study(factor="optim.lr", baseline=1e30, grid={**grid, "optim.lr": [1e29, 1e30]}, base=base)
    with pytest.raises(RunError, match="all 4 runs of the study failed"):
        study(hopeless, cache_dir=cache_dir)


# --- what is told


def test_the_findings_name_level_metric_interval_and_verdict() -> None:
    lines = findings(drawn())
    assert len(lines) == 5
    overall = drawn().overall("mean_recall", 1)
    assert overall is not None
    low, high = overall.difference.interval or (0, 0)
    assert low > 0
    numbers = f"{100 * overall.difference.mean:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]"
    assert lines[0].startswith(
        f"variance against fixed, mean recall: {numbers}, pooled over 4 conditions and 5 seeds: "
    )
    assert (
        "by chance alone 4.2) of 84 under single conditions (3 levels × 4 conditions × 7 metrics)" in lines[3]
    )
    assert "by chance alone 1.1) of 21 pooled ones" in lines[3]
    assert "on 200 images the standard error of one run's mean recall is" in lines[4]


def test_of_one_condition_and_two_seeds_the_words_are_right_too() -> None:
    trials = {
        (0, level, s): trial(0.1 * (1 + level) + 0.001 * s * level)
        for level, s in product(range(2), range(2))
    }
    lines = findings(made_up(trials, conditions=({},), seeds=(0, 1), metrics=("i2t_r1",)))
    assert lines[0] == (
        "variance against fixed, R@1 image → text: +10.05 points [+9.41, +10.69], pooled over 1 condition "
        "and 2 seeds: better."
    )
    assert lines[1].startswith(
        "Intervals that exclude zero: 1 (1 above and 0 below, by chance alone 0.1) of 1 under single "
        "conditions (1 level × 1 condition × 1 metric); 1 (1 above and 0 below, "
    )


def test_page_record_and_figures_are_written(tmp_path: Path) -> None:
    found = drawn()
    page = report_study(found, tmp_path).read_text()
    assert {path.name for path in tmp_path.rglob("*.*")} == {
        "study.md", "study.json", "levels.png", "differences.png",
    }  # fmt: skip
    for finding in findings(found):
        assert finding in page
    assert page.count("\n| 0.25 | variance |") == len(METRICS)
    record = json.loads((tmp_path / "study.json").read_text())
    assert len(record["cells"]) == 7 * 4 * 4
    assert len(record["overall"]) == 3 * 7
    assert record["overall"][0]["verdict"] == "better"
    assert record["overall"][0]["wide_interval"][0] < record["overall"][0]["difference"]["interval"][0]


def test_a_study_of_untrained_encoders_says_so_everywhere(tmp_path: Path) -> None:
    found = made_up(constant(BY_HAND).trials, untrained=("resnet18",))
    assert "UNTRAINED encoders: resnet18" in report_study(found, tmp_path).read_text()
    for figure in (levels_figure(found), differences_figure(found)):
        assert "UNTRAINED encoders: resnet18" in figure.get_suptitle()


@pytest.mark.parametrize(
    "conditions", [({},), ({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": None, "b": "x"}), ({"a": 3},)]
)
def test_figures_are_drawn_of_any_conditions_and_of_holes(conditions: tuple[dict[str, Any], ...]) -> None:
    trials = {(c, level, s): trial(0.1 * (1 + level) + 0.01 * s * c)
              for c, level, s in product(range(len(conditions)), range(2), range(2))}  # fmt: skip
    del trials[0, 1, 1]
    found = made_up(trials, conditions=conditions, seeds=(0, 1), failed=(Failure({"seed": 1}, "x"),))
    for figure in (levels_figure(found), differences_figure(found)):
        figure.draw_without_rendering()
        assert len(figure.axes) == 8
        assert not figure.axes[7].axison  # seven metrics


def test_telling_a_study_needs_no_torch() -> None:
    code = "import sys, align_cache.reporting.study_build; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_the_command_lists_trains_and_tells(
    cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paired_sets(cache_dir)
    file = tmp_path / "heat.toml"
    lines = [f'"{key}" = {json.dumps(value)}' for key, value in BASE.items()]
    grid = [f'"{key}" = {json.dumps(value)}' for key, value in GRID.items()]
    shared = [line.replace('"', "", 2) for line in lines]
    file.write_text("\n".join([*shared, "[study]", 'factor = "loss.temperature"', "baseline = 0.1",
                               "together = 4", "[grid]", *grid]))  # fmt: skip
    command = ["study", "--config", str(file), "--cache-dir", str(cache_dir)]
    assert main([*command, "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert list_runs(cache_dir) == []
    assert main([*command, "--no-figures", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["name"], len(record["runs"])) == ("heat", 8)
    assert main([*command, "--no-figures"]) == 0
    out = capsys.readouterr().out
    assert "pooled over conditions" in out
    assert out.splitlines()[-1].endswith("studies/heat/study.md")
