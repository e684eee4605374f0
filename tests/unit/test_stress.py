"""Stress tests: noise on features, noisy variants found or extracted, the record, its tables and pictures."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_cache.cli import main
from align_cache.corruption import Noise
from align_cache.corruption.features import STRENGTHS, noisy_features
from align_cache.errors import AlignCacheError, CacheError, ShapeError, UsageError
from align_cache.extraction import variants
from align_cache.extraction.extracting import extract
from align_cache.extraction.variants import noisy_variant
from align_cache.judging.evaluation import evaluate
from align_cache.judging.stress_comparison import compare_stress
from align_cache.reporting import report
from align_cache.reporting.stress_figure import stress_comparison_figure, stress_figure
from align_cache.reporting.stress_tables import stress_comparison_tables, stress_tables
from align_cache.results import Run
from align_cache.settings import EvalConfig, ExtractConfig, StressConfig, fit_config
from align_cache.store import FeatureSet, find, open_feature_set
from align_cache.store.provenance import provenance_bytes, read_provenance
from align_cache.studies.stressing import stress
from align_cache.training.fitting import fit
from tests.unit.stored import paired_sets
from tests.unit.test_fit import toy

SCENES: dict[str, Any] = {
    "dataset": "shapes",
    "encoders": ("small-cnn", "small-text"),
    "weights": {"*": "random"},
    "options": {"count": 80, "image_size": 32},
    "shard_rows": 32,
    "batch_size": 16,
    "dtype": "float32",
    "device": "cpu",
}


def extracted(cache_dir: Path, **changes: Any) -> list[FeatureSet]:
    made = extract(ExtractConfig(**{**SCENES, **changes}), cache_dir=cache_dir)
    return [FeatureSet.open(each.folder) for each in made]


def trained(cache_dir: Path, **changes: Any) -> Run:
    settings = {
        "data.dataset": "shapes",
        "data.image_encoder": "small-cnn",
        "data.text_encoder": "small-text",
        "data.reference": "none",
        "data.batch_size": 8,
        "optim.epochs": 2,
        "optim.warmup_epochs": 0,
        "optim.gradient_accumulation_steps": 1,
        "adapter.mlp_hidden_dims": [16],
        "adapter.embed_dim": 12,
        "evaluation.k": 3,
        "loss.distribution_matching": False,
    }
    return fit(fit_config(flags={**settings, **changes}), cache_dir=cache_dir)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A cache of drawn scenes with a run in it, and some noise measured; nobody changes its clean sets."""
    cache_dir = tmp_path_factory.mktemp("cache")
    extracted(cache_dir)
    return cache_dir, trained(cache_dir)


def unit(n: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(n).standard_normal((n, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", STRENGTHS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (50, 129)])
def test_noisy_features_are_unit_norm_and_decided_by_the_id_alone(kind: str, shape: tuple[int, int]) -> None:
    rows, ids = unit(*shape), [f"image-{row}" for row in range(shape[0])]
    order = np.random.default_rng(0).permutation(shape[0])
    for severity in range(1, 6):
        noisy = noisy_features(rows, ids, kind=kind, severity=severity)
        np.testing.assert_allclose(np.linalg.norm(noisy, axis=1), 1, rtol=1e-5)
        again = noisy_features(rows[order], [ids[row] for row in order], kind=kind, severity=severity)
        np.testing.assert_array_equal(noisy[order], again)


def test_gaussian_feature_noise_turns_rows_by_the_angle_that_is_documented() -> None:
    rows, ids = unit(400, 512), [str(row) for row in range(400)]
    for severity, sigma in enumerate(STRENGTHS["gaussian"], start=1):
        noisy = noisy_features(rows, ids, kind="gaussian", severity=severity)
        assert (noisy * rows).sum(axis=1).mean() == pytest.approx(1 / np.sqrt(1 + sigma**2), abs=0.01)


def test_what_dropout_takes_at_one_severity_it_takes_at_all_higher_ones() -> None:
    rows, ids = unit(60, 200), [str(row) for row in range(60)]
    gone = [noisy_features(rows, ids, kind="dropout", severity=severity) == 0 for severity in range(1, 6)]
    assert all((less <= more).all() for less, more in pairwise(gone))
    np.testing.assert_allclose([each.mean() for each in gone], STRENGTHS["dropout"], atol=0.02)


def test_dropout_leaves_a_row_with_one_component_that_it_has() -> None:
    rows = np.zeros((40, 30), dtype=np.float32)
    rows[np.arange(40), np.arange(40) % 30] = -1
    noisy = noisy_features(rows, [str(row) for row in range(40)], kind="dropout", severity=5)
    np.testing.assert_array_equal(noisy, rows)


def test_feature_noise_that_there_is_none_of_is_refused() -> None:
    for kind, severity in (("fog", 1), ("gaussian", 0), ("dropout", 6)):
        with pytest.raises(UsageError, match="there is no feature noise"):
            noisy_features(unit(2, 3), ["a", "b"], kind=kind, severity=severity)
    with pytest.raises(ShapeError, match=r"expected \(1, dim\)"):
        noisy_features(unit(2, 3), ["a"], kind="gaussian", severity=1)


def test_the_clean_pairs_are_what_eval_says_and_a_second_call_keeps_the_points_of_the_first(
    shared: tuple[Path, Run],
) -> None:
    cache_dir, run = shared
    first = stress(run, StressConfig(severities=(1, 5)), cache_dir=cache_dir)
    evaluation = evaluate(run, EvalConfig(k=2), cache_dir=cache_dir)
    assert first["clean"] == evaluation["embeddings"]["retrieval"]
    places = [(point["on"], point["kind"], point["level"]) for point in first["points"]]
    assert places == [("features", kind, level) for kind in ("gaussian", "dropout") for level in (1, 5)]
    second = stress(
        run,
        StressConfig(feature_noise=("gaussian",), feature_side="text", severities=(3,)),
        cache_dir=cache_dir,
    )
    kept = run.stress()
    assert kept is not None
    assert kept["points"] == [*first["points"], *second["points"]]
    other = stress(run, StressConfig(split="train", severities=(1,)), cache_dir=cache_dir)
    assert run.stress() == other  # other pairs: nothing of the first is left beside them


def test_variants_are_the_clean_sets_but_for_noise_and_only_of_the_split_that_is_judged(
    shared: tuple[Path, Run],
) -> None:
    cache_dir, run = shared
    config = StressConfig(image_noise=("jpeg",), caption_noise=("drop",), severities=(2,), rates=(0.5,))
    record = stress(run, config, cache_dir=cache_dir)
    made = {stored.manifest.variant: stored.manifest for stored in find(cache_dir) if stored.manifest.noise}
    for variant, clean in (("small-cnn+jpeg:2", "small-cnn"), ("small-text+drop:0.5", "small-text")):
        identity = open_feature_set("shapes", clean, cache_dir=cache_dir).manifest.identity
        for part in ("encoder", "compute", "storage"):
            assert made[variant].identity[part] == identity[part]
        assert made[variant].structure.dataset.splits == ["test"]
    assert made["small-cnn+jpeg:2"].rows == record["n_images"] == 8
    assert made["small-text+drop:0.5"].rows == record["n_captions"] == 40


def test_a_variant_that_is_there_is_used_whoever_made_it(
    shared: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_dir, run = shared
    extracted(cache_dir, encoders=("small-cnn",), image_noise="blur:4")  # of all splits
    monkeypatch.setattr(variants, "extract", lambda *_, **__: pytest.fail("extracted again"))
    config = StressConfig(image_noise=("blur",), severities=(4,))
    (point,) = stress(run, config, cache_dir=cache_dir)["points"]
    assert (point["on"], point["kind"], point["level"]) == ("images", "blur", 4)


def test_of_a_limited_set_just_the_judged_images_are_extracted(cache_dir: Path) -> None:
    (clean,) = extracted(cache_dir, encoders=("small-cnn",), limit=35)
    assert clean.splits is not None
    ids = clean.sample_ids[clean.splits == "test"].tolist()
    noisy = noisy_variant(
        clean, Noise("jpeg", 1), cache_dir=cache_dir, sample_ids=ids, splits=("test",), device="cpu"
    )
    assert noisy.sample_ids.tolist() == ids


def test_noise_is_put_on_a_side_and_the_other_stays(shared: tuple[Path, Run]) -> None:
    cache_dir, run = shared
    both = {}
    for side in ("image", "text", "both"):
        config = StressConfig(feature_noise=("gaussian",), feature_side=side, severities=(2,))
        (point,) = stress(run, config, cache_dir=cache_dir)["points"]
        both[point["on"]] = point["retrieval"]
    assert set(both) == {"image features", "caption features", "features"}
    assert len({json.dumps(retrieval) for retrieval in both.values()}) == 3


def test_a_run_that_was_trained_on_noise_is_judged_from_the_clean_pairs_on(
    shared: tuple[Path, Run],
) -> None:
    cache_dir, _ = shared
    extracted(cache_dir, encoders=("small-cnn",), image_noise="gaussian:4")
    run = trained(cache_dir, **{"data.image_encoder": "small-cnn+gaussian:4"})
    config = StressConfig(image_noise=("gaussian",), severities=(4,))
    record = stress(run, config, cache_dir=cache_dir)
    (point,) = record["points"]
    own = evaluate(run, EvalConfig(k=2), cache_dir=cache_dir)["embeddings"]["retrieval"]
    assert point["retrieval"] == own != record["clean"]
    assert any("which is noisy: judged from shapes/small-cnn@" in note for note in record["notes"])


def refusal(clean: FeatureSet, cache_dir: Path, noise: Noise) -> AlignCacheError:
    with pytest.raises(CacheError) as refused:
        noisy_variant(
            clean, noise, cache_dir=cache_dir, sample_ids=clean.sample_ids.tolist()[:1], splits=("test",)
        )
    return refused.value


def test_what_cannot_be_extracted_is_refused_with_the_command_that_makes_it(
    cache_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n", encoding="utf-8")
    image, text = extracted(cache_dir, tokenizer=tmp_path)
    (tmp_path / "vocab.txt").unlink()
    refused = refusal(text, cache_dir, Noise("drop", 0.5))
    assert "its encoder cannot be had again" in refused.message
    assert refused.hint == (
        f"align-cache extract --dataset shapes --captions-of {text.name} --encoder small-text "
        "--weights random:0 --tokenizer FOLDER --precision fp32 --split test --caption-noise drop:0.5"
    )
    provenance = image.folder / "provenance.json"
    record = read_provenance(image.folder, key=image.key)
    record["source"]["options"] = {"count": 81, "image_size": 32}
    provenance.write_bytes(provenance_bytes(record, key=image.key))
    refused = refusal(image, cache_dir, Noise("blur", 1))
    assert "shapes no longer holds what was extracted as shapes/small-cnn@" in refused.message
    provenance.unlink()
    assert "does not say which data" in refusal(image, cache_dir, Noise("blur", 1)).message


def test_imported_features_take_noise_on_features_alone(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    assert stress(run, StressConfig(severities=(1,)), cache_dir=cache_dir)["n_images"] == 12
    with pytest.raises(CacheError, match="was imported: nothing says what made it") as refused:
        stress(run, StressConfig(image_noise=("blur",)), cache_dir=cache_dir)
    assert refused.value.hint is not None
    assert "--feature-noise" in refused.value.hint


def test_token_ids_take_noise_on_captions_and_none_on_features(cache_dir: Path) -> None:
    extracted(cache_dir)
    extracted(cache_dir, encoders=("tokens",), weights={}, max_length=16)
    run = trained(cache_dir, **{"data.text_encoder": "tokens", "adapter.text_type": "lstm"})
    config = StressConfig(
        caption_noise=("replace",), feature_noise=("gaussian",), severities=(1,), rates=(1,)
    )
    record = stress(run, config, cache_dir=cache_dir)
    assert [point["on"] for point in record["points"]] == ["captions", "image features"]
    assert "holds token ids" in record["notes"][-1]
    with pytest.raises(UsageError, match="which take no noise on features"):
        stress(run, StressConfig(feature_side="text"), cache_dir=cache_dir)


def test_runs_that_differ_in_their_seed_are_one_line_with_its_spread(
    shared: tuple[Path, Run], tmp_path: Path
) -> None:
    cache_dir, run = shared
    others = [trained(cache_dir, seed=1), trained(cache_dir, **{"optim.lr": 0.01})]
    config = StressConfig(feature_noise=("gaussian",), severities=(1, 4))
    tested = [(each, stress(each, config, cache_dir=cache_dir)) for each in (run, *others)]
    comparison = compare_stress(tested)
    assert [len(group.runs) for group in comparison.groups] == [2, 1]
    assert list(comparison.groups[0].settings) == ["optim.lr"]
    place = ("features", "gaussian", 4)
    values = [record["points"][1]["retrieval"]["text_to_image"]["r10"] for _, record in tested[:2]]
    spread = comparison.groups[0].recall(place, "text_to_image", 10)
    assert (spread.mean, spread.sd) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    alone = comparison.groups[1].recall(None, "text_to_image", 1)
    assert alone.interval == tuple(tested[2][1]["clean"]["text_to_image"]["intervals"]["r1"])
    groups, *tables = stress_comparison_tables(comparison)
    assert [row[2] for row in groups.rows] == ["2", "1"]
    assert all(len(table.rows) == 3 and "±" in table.rows[0][2] for table in tables)
    assert len(stress_comparison_figure(comparison).axes) == 4
    assert json.dumps(comparison.to_record())


def test_runs_judged_on_other_pairs_are_not_set_side_by_side(shared: tuple[Path, Run]) -> None:
    cache_dir, run = shared
    tested = [(run, stress(run, StressConfig(split=split, severities=(1,)), cache_dir=cache_dir))
              for split in ("test", "val")]  # fmt: skip
    with pytest.raises(UsageError, match="split = val"):
        compare_stress(tested)
    images = StressConfig(feature_side="image", severities=(1,), split="test")
    with pytest.raises(UsageError, match="no level of noise was put on the same side of all 2 runs"):
        compare_stress([tested[0], (run, stress(run, images, cache_dir=cache_dir))])


def test_the_table_has_the_clean_pairs_first_and_chance_last_and_the_report_shows_it(
    shared: tuple[Path, Run],
) -> None:
    cache_dir, run = shared
    record = stress(run, StressConfig(severities=(1, 2)), cache_dir=cache_dir)
    for table, way in zip(stress_tables(record), ("image_to_text", "text_to_image"), strict=True):
        labels = [row[:2] for row in table.rows]
        assert labels[0] == ("no noise", "")
        assert labels[1:-1] == [(f"{kind}, features", level) for kind in ("dropout", "gaussian")
                                for level in ("1", "2")]  # fmt: skip
        assert labels[-1] == ("chance", "")
        assert table.rows[0][2] == f"{100 * record['clean'][way]['r1']:.1f}"
    figure = stress_figure(record)
    assert figure is not None
    assert len(figure.axes) == 4
    assert stress_figure({**record, "points": []}) is None
    page = report(run.folder, perplexities=()).read_text(encoding="utf-8")
    assert "dropout, features" in page
    assert (run.folder / "figures" / "stress.png").is_file()


def test_the_command_prints_what_it_measured_and_draws_it(
    shared: tuple[Path, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_dir, run = shared
    where = ["--cache-dir", str(cache_dir), "--severity", "1", "--feature-noise", "gaussian"]
    assert main(["stress", run.id, *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"][0]["kind"] == "gaussian"
    other = trained(cache_dir, seed=7)
    picture = tmp_path / "noise.png"
    assert main(["stress", run.id, other.id, *where, "--figure", str(picture)]) == 0
    assert "gaussian, features" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["stress", run.id, *where, "--figure", str(picture)]) == 2
    assert main(["stress", run.id, other.id, *where, "--figure", "noise.pdf"]) == 2
    assert main(["stress", run.id, "--cache-dir", str(cache_dir), "--image-noise", "fog"]) == 2
    assert "'gaussian', 'blur'" in capsys.readouterr().err
