"""Training: the loop against a plain one, resuming, records, checkpoints, refusals."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from align_cache.adapters.checkpoint import Weights, load_adapters, load_trainer, save_checkpoint
from align_cache.adapters.run_adapters import load_pair, new_pair
from align_cache.errors import (
    AlignCacheError,
    ConfigError,
    CorruptError,
    NonFiniteError,
    PairingError,
    RunError,
    UsageError,
)
from align_cache.judging.evaluation import evaluate
from align_cache.metrics.alignment import ALIGNMENT_METRICS
from align_cache.pairing.batches import Batches
from align_cache.pairing.pairs import join, split_pairs
from align_cache.results import Run, find_run, list_runs
from align_cache.settings import EvalConfig, FitConfig, fit_config
from align_cache.training.assemble import Opened
from align_cache.training.fitting import fit, resume_fit, start
from tests.unit.stored import paired_sets

TOY: dict[str, Any] = {
    "data.dataset": "toy",
    "data.image_encoder": "image",
    "data.text_encoder": "text",
    "data.reference": "reference",
    "data.batch_size": 8,
    "data.num_samples": "none",
    "adapter.mlp_hidden_dims": [16],
    "optim.epochs": 4,
    "optim.warmup_epochs": 1,
    "optim.lr": 1e-2,
    "loss.temperature": 0.1,
    "evaluation.k": 3,
    "log.log_frequency": 1,
}


def toy(**changes: object) -> FitConfig:
    return fit_config(flags={**TOY, **{key.replace("__", "."): value for key, value in changes.items()}})


def epochs(run: Run) -> list[dict[str, Any]]:
    return [record for record in run.records() if record["kind"] == "epoch"]


def without_durations(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key not in ("train_s", "duration_s")}
        for record in records
    ]


def plain_training(config: FitConfig, cache_dir: Path) -> dict[str, torch.Tensor]:
    """The same run as a textbook loop: rows gathered one by one, micro-batches in turn."""
    from align_cache.store import open_feature_set

    sets = [open_feature_set("toy", name, cache_dir=cache_dir) for name in ("image", "text", "reference")]
    joined = join(*sets)
    splits = split_pairs(joined, how="dataset", val_fraction=0.25, num_samples=None, seed=config.seed)
    batches = Batches(splits.train, batch_size=8, accumulation=2, captions_per_image=1, seed=config.seed)
    torch.manual_seed(config.seed)
    pair = new_pair(config, 12, 10, 8)
    heads = [*pair.image.parameters(), *pair.text.parameters()]
    optimizer = torch.optim.AdamW(heads, lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    total, warm = 4 * batches.steps_per_epoch, batches.steps_per_epoch
    step = 0
    pair.train()
    for epoch in range(1, 5):
        for rows in batches.epoch(epoch):
            progress = (step - warm) / (total - warm)
            cosine = 1e-6 + (config.optim.lr - 1e-6) * 0.5 * (1 + np.cos(np.pi * progress))
            optimizer.param_groups[0]["lr"] = config.optim.lr * (step + 1) / warm if step < warm else cosine
            optimizer.zero_grad()
            n_micro = len(rows.image_rows) // 8
            for m in range(n_micro):
                part = slice(8 * m, 8 * m + 8)
                assert rows.reference_rows is not None
                arrays = [
                    torch.stack([torch.from_numpy(np.array(s.array()[r])).float() for r in index[part]])
                    for s, index in zip(
                        sets, (rows.image_rows, rows.caption_rows, rows.reference_rows), strict=True
                    )
                ]
                image, text = F.normalize(pair.image(arrays[0])), F.normalize(pair.text(arrays[1]))
                logits = image @ text.T / 0.1
                target = torch.arange(8)
                loss = (
                    F.cross_entropy(logits, target, label_smoothing=0.15)
                    + F.cross_entropy(logits.T, target, label_smoothing=0.15)
                ) / 2
                aligned = F.normalize(image + text)
                reference = F.normalize(arrays[2])
                gap = 8 * aligned.var(0, correction=0) - 8 * reference.var(0, correction=0)
                ((loss + 0.4 * gap.square().mean()) / n_micro).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(heads, 0.5)
            optimizer.step()
            step += 1
    return pair.state_dict()


@pytest.mark.parametrize("rows", ["memory", "mmap"])
def test_training_is_the_plain_loop(cache_dir: Path, rows: str) -> None:
    """Micro-batches folded into one pass, fused AdamW and torch's schedulers against the loop written out."""
    paired_sets(cache_dir)
    config = toy(adapter__dropout=0.0, data__rows=rows, precision="fp32")
    run = fit(config, cache_dir=cache_dir)
    weights, epoch = load_adapters(run.checkpoints, "last")
    assert epoch == 4
    expected = plain_training(config, cache_dir)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=2e-4, atol=2e-5, msg=name)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    one, two, other = (fit(toy(seed=seed), cache_dir=cache_dir) for seed in (0, 0, 1))
    assert without_durations(one.records()) == without_durations(two.records())
    first, second, third = (load_adapters(run.checkpoints, "last")[0] for run in (one, two, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("stop_at", [0, 1, 3])
def test_an_interrupted_run_resumes_to_the_same_result(cache_dir: Path, stop_at: int) -> None:
    """Stopped in the middle of an epoch, after log lines of it were written; dropout is on."""
    paired_sets(cache_dir)
    whole = fit(toy(loss__learn_temperature=True), cache_dir=cache_dir)

    def interrupt(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["epoch"] == stop_at + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(toy(loss__learn_temperature=True), cache_dir=cache_dir, on_record=interrupt)
    stopped = find_run(cache_dir=cache_dir)
    assert stopped.info()["status"] == "interrupted"
    resumed = resume_fit("latest", cache_dir=cache_dir)
    assert resumed.folder == stopped.folder
    assert resumed.info()["status"] == "finished"
    assert without_durations(resumed.records()) == without_durations(whole.records())
    for which in ("best", "last"):
        expected, epoch = load_adapters(whole.checkpoints, which)
        got, got_epoch = load_adapters(resumed.checkpoints, which)
        assert epoch == got_epoch
        assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_resuming_a_finished_run_changes_nothing(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    resume_fit(run.id, cache_dir=cache_dir)
    assert before == {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_a_run_learns_and_its_folder_says_what_it_did(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(optim__epochs=15), cache_dir=cache_dir, command="align-cache fit")
    logged = epochs(run)
    assert [record["epoch"] for record in logged] == list(range(16))
    assert "train" not in logged[0]
    assert logged[-1]["val"]["loss"] < logged[0]["val"]["loss"] - 0.3
    found = logged[-1]["retrieval"]["image_to_text"]
    assert found["r1"] > 5 / found["n_candidates"]
    share = logged[-1]["val"]
    assert share["variance_share"] == pytest.approx(0.4 * share["variance"] / share["loss"])
    info = run.info()
    assert info["status"] == "finished"
    assert info["image"]["dim"] == 12
    assert info["n_train_images"] == 36
    assert info["best_epoch"] == 1 + int(np.argmin([record["val"]["loss"] for record in logged[1:]]))
    assert fit_config(file=run.folder / "config.toml") == toy(optim__epochs=15)
    steps = [record for record in run.records() if record["kind"] == "step"]
    assert len(steps) == 15 * info["steps_per_epoch"]
    assert len(list(run.snapshots.glob("*.npz"))) == 16
    assert list_runs(cache_dir) == [run]


def test_snapshots_hold_the_same_pairs_each_time_and_zero_turns_them_off(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(log__viz_frequency=2), cache_dir=cache_dir)
    files = sorted(run.snapshots.glob("*.npz"))
    assert [file.stem for file in files] == ["epoch-0000", "epoch-0002", "epoch-0004"]
    with np.load(files[0]) as first, np.load(files[-1]) as last:
        assert (first["sample_id"] == last["sample_id"]).all()
        assert np.array_equal(first["reference"], last["reference"])
        assert not np.array_equal(first["image"], last["image"])
    none = fit(toy(log__viz_frequency=0), cache_dir=cache_dir)
    assert not list(none.snapshots.iterdir())


def test_save_dir_moves_the_runs_and_they_are_still_found(cache_dir: Path, tmp_path: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(log__save_dir=str(tmp_path / "experiments")), cache_dir=cache_dir)
    assert run.folder.parent == tmp_path / "experiments"
    assert find_run("latest", cache_dir=cache_dir).folder == run.folder
    assert find_run(run.id[:-2], cache_dir=cache_dir).folder == run.folder


def test_a_copy_of_a_cache_keeps_to_its_own_runs(cache_dir: Path, tmp_path: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    copy = tmp_path / "copy"
    shutil.copytree(cache_dir, copy)
    assert find_run(cache_dir=copy).folder == copy / "runs" / run.id


def test_without_distribution_matching_the_term_is_absent(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(loss__distribution_matching=False), cache_dir=cache_dir)
    last = epochs(run)[-1]
    assert last["val"]["variance_share"] == 0.0
    assert last["val"]["loss"] == last["val"]["contrastive"]
    assert last["alignment"]["mutual_knn"].keys() >= {"image_reference"}


def test_a_run_without_a_reference_measures_what_it_can(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    config = toy(data__reference="none", loss__distribution_matching=False, adapter__embed_dim=6)
    run = fit(config, cache_dir=cache_dir)
    last = epochs(run)[-1]
    assert last["alignment"]["mutual_knn"].keys() == {"image_text"}
    assert last["hypotheses"] is None
    record = evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)
    assert record["hypotheses"] is None
    assert record["embeddings"]["retrieval"]["image_to_text"]["n_queries"] == 12


def test_an_embedding_of_another_width_than_the_reference_is_refused_before_training(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    with pytest.raises(ConfigError, match=r"adapter.embed_dim = 5, and toy/reference@\w+ has 8 dimensions"):
        fit(toy(adapter__embed_dim=5), cache_dir=cache_dir)
    assert list_runs(cache_dir) == []


def test_more_neighbours_than_images_is_one_line_before_work(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    with pytest.raises(ConfigError, match=r"evaluation\.k = 12 neighbours, and only 12 images validate"):
        fit(toy(evaluation__k=12), cache_dir=cache_dir)


def test_a_loss_that_is_no_number_stops_the_run_and_marks_it(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    with pytest.raises(NonFiniteError, match="the loss is nan in epoch 1"):
        fit(toy(optim__lr=1e30, optim__clip_grad_norm="none", adapter__norm="none"), cache_dir=cache_dir)
    run = find_run(cache_dir=cache_dir)
    assert run.info()["status"] == "failed"
    assert "the loss is nan" in run.info()["error"]


def test_bf16_products_give_nearly_the_fp32_run(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    full, half = (epochs(fit(toy(precision=p), cache_dir=cache_dir))[-1] for p in ("fp32", "bf16"))
    assert half["val"]["loss"] == pytest.approx(full["val"]["loss"], rel=0.05)
    assert half["val"]["loss"] != full["val"]["loss"]


def test_all_captions_are_five_times_the_steps_of_one(cache_dir: Path) -> None:
    paired_sets(cache_dir, captions=5)
    one, every = (
        fit(toy(data__captions_per_image=c, optim__gradient_accumulation_steps=1), cache_dir=cache_dir).info()
        for c in (1, "all")
    )
    assert every["steps_per_epoch"] == 5 * one["steps_per_epoch"]


def test_the_probe_while_training_and_in_an_evaluation(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    labelled(cache_dir)
    run = fit(toy(evaluation__probe="classes", evaluation__downstream_eval_frequency=2), cache_dir=cache_dir)
    probes = [record for record in run.records() if record["kind"] == "probe"]
    assert [record["epoch"] for record in probes] == [2, 4]
    record = evaluate(run, EvalConfig(k=3, probe="classes", checkpoint="last"), cache_dir=cache_dir)
    assert record["probe"]["rows"] == probes[-1]["rows"]
    assert record["probe"]["rows"]["image_features"]["linear"]["accuracy"] > 0.9
    reference = record["probe"]["rows"]["reference_features"]["linear"]["accuracy"]
    relative = record["probe"]["relative"]["image_features"]["linear"]
    assert relative == record["probe"]["rows"]["image_features"]["linear"]["accuracy"] / reference
    assert run.results() == [json.loads(json.dumps(record))]


def test_a_probe_without_the_reference_is_asked_for_and_not_relative_to_anything(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    labelled(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    record = evaluate(run, EvalConfig(k=3, probe="classes", probe_with_reference=False), cache_dir=cache_dir)
    assert record["probe"]["rows"].keys() == {"image_features", "image_embeddings"}
    assert record["probe"]["relative"] == {}


def test_every_probe_head_that_is_asked_for_is_judged_and_set_against_the_reference(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    labelled(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    config = EvalConfig(k=3, probe="classes", probe_heads=("knn", "ridge", "mlp", "linear", "knn"), probe_k=7)
    probe = evaluate(run, config, cache_dir=cache_dir)["probe"]
    for row, heads in probe["rows"].items():
        assert list(heads) == ["knn", "ridge", "mlp", "linear"]
        assert {head: result["head"] for head, result in heads.items()} == {head: head for head in heads}
        assert [result["k"] for result in heads.values()] == [7, None, None, None]
        for head, result in heads.items():
            assert result["accuracy"] > 0.6, (row, head)
            reference = probe["rows"]["reference_features"][head]["accuracy"]
            assert probe["relative"][row][head] == result["accuracy"] / reference


def test_more_neighbours_than_train_rows_are_refused_before_any_work(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    labelled(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    said: list[str] = []
    config = EvalConfig(k=3, probe="classes", probe_heads=("knn",), probe_k=61)
    with pytest.raises(UsageError, match=r"probe_k = 61 neighbours, and classes has 60 train rows") as caught:
        evaluate(run, config, cache_dir=cache_dir, on_stage=said.append)
    assert caught.value.hint == "--probe-k 60 is the largest"
    assert said == ["opening the features"]


def test_a_probe_set_of_another_encoder_is_refused(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    labelled(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    config = EvalConfig(k=3, probe="classes", probe_image_encoder="reference")
    with pytest.raises(PairingError, match=r"classes/reference@\w+ has 8 dimensions"):
        evaluate(run, config, cache_dir=cache_dir)
    with pytest.raises(PairingError, match=r"toy/image@\w+ cannot be probed: it has no labels"):
        evaluate(run, EvalConfig(k=3, probe="toy"), cache_dir=cache_dir)


def labelled(cache_dir: Path) -> None:
    """A probe set "classes" of three well-separated classes, by the toy encoders' names and widths."""
    from align_cache.extraction.external import import_features

    generator = np.random.default_rng(5)
    labels = np.arange(90) % 3
    for name, dim in (("image", 12), ("reference", 8)):
        centres = generator.standard_normal((3, dim)) * 2
        np.savez(
            cache_dir / "classes.npz",
            sample_id=np.array([f"c{i}" for i in range(90)]),
            features=(centres[labels] + 0.5 * generator.standard_normal((90, dim))).astype(np.float32),
            label=labels,
            split=np.array(["train" if i < 60 else "test" for i in range(90)]),
        )
        import_features(
            cache_dir / "classes.npz", dataset="classes", encoder=name, modality="image", cache_dir=cache_dir
        )


def test_an_evaluation_judges_the_split_that_was_asked_for(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(precision="fp32"), cache_dir=cache_dir)
    on_test, on_val = (evaluate(run, EvalConfig(k=3, split=s), cache_dir=cache_dir) for s in (None, "val"))
    assert (on_test["split"], on_val["split"]) == ("test", "val")
    assert on_test["n_images"] == on_val["n_images"] == 12
    assert on_test["features"]["retrieval"] is None
    assert on_test["hypotheses"].keys() == {"embeddings", "features"}
    best = epochs(run)[on_val["epoch"]]
    assert on_val["embeddings"]["alignment"] == best["alignment"]
    assert best.keys().isdisjoint({"intervals", "null"})
    assert on_val["embeddings"]["retrieval"] == best["retrieval"]
    with pytest.raises(AlignCacheError, match="toy has no dev2 images; its splits: test, train, val"):
        evaluate(run, EvalConfig(k=3, split="dev2"), cache_dir=cache_dir)


def test_an_evaluation_measures_the_metrics_and_the_null_that_were_asked_for(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    record = evaluate(
        run, EvalConfig(k=3, metrics=("lcs_knn", "cka"), permutations=19, seed=4), cache_dir=cache_dir
    )
    assert (record["permutations"], record["seed"]) == (19, 4)
    for space in ("features", "embeddings"):
        assert list(record[space]["alignment"]) == ["lcs_knn", "cka"]
        assert record[space]["null"].keys() == {"lcs_knn", "cka"}
        assert record[space]["intervals"].keys() == {"cka"}  # 12 items are too few to halve
        assert record["hypotheses"][space]["cka"]["h2"]["interval"]
    assert record == run.results()[-1]
    without = evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)
    assert "null" not in without["embeddings"]
    assert list(without["embeddings"]["alignment"]) == ["mutual_knn", "cka"]


def test_all_stands_for_every_metric_that_there_is() -> None:
    assert EvalConfig(metrics=("cka", "all")).metrics == tuple(ALIGNMENT_METRICS)
    assert EvalConfig(metrics=("cka", "svcca", "cka")).metrics == ("cka", "svcca")


def test_k_beyond_the_images_of_a_split_is_one_line(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    with pytest.raises(AlignCacheError, match="k = 12 neighbours, and the test split has 12 images"):
        evaluate(run, EvalConfig(k=12), cache_dir=cache_dir)


def test_a_checkpoint_of_another_architecture_is_refused(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    config = (run.folder / "config.toml").read_text().replace("16,", "17,")
    (run.folder / "config.toml").write_text(config)
    with pytest.raises(CorruptError, match="is not of its config"):
        load_pair(run)


def test_a_damaged_checkpoint_is_refused_by_name(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    path = run.checkpoints / "adapters-0004.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"adapters-0004\.safetensors is not the file that was saved"):
        load_adapters(run.checkpoints, "last")


def test_only_the_best_and_the_last_checkpoint_are_kept(tmp_path: Path) -> None:
    for epoch, is_best in ((1, True), (2, True), (3, False), (4, False)):
        weights = Weights(epoch, {"w": torch.full((2,), float(epoch))})
        save_checkpoint(
            tmp_path,
            last=weights,
            best=weights if is_best else None,
            trainer={"best": -float(epoch)},
            metadata={},
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapters-0002.safetensors",
        "adapters-0004.safetensors",
        "index.json",
        "trainer-0004.pt",
    ]
    assert load_adapters(tmp_path, "best")[0]["w"][0] == 2
    assert load_trainer(tmp_path) == ({"best": -4.0}, 4)


def test_a_trainer_state_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    nothing = Weights(1, {})
    save_checkpoint(tmp_path, last=nothing, best=nothing, trainer={}, metadata={})
    torch.save({"canary": Canary()}, tmp_path / "trainer-0001.pt")
    index = json.loads((tmp_path / "index.json").read_text())
    forged = copy.deepcopy(index)
    from align_cache.files import checksum

    forged["last"]["trainer"]["xxh3_128"] = checksum(tmp_path / "trainer-0001.pt")
    (tmp_path / "index.json").write_text(json.dumps(forged))
    with pytest.raises(CorruptError, match=r"trainer-0001\.pt"):
        load_trainer(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_run_that_does_not_exist_is_named_with_the_ones_that_do(cache_dir: Path) -> None:
    with pytest.raises(RunError, match="no runs in"):
        find_run(cache_dir=cache_dir)
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    with pytest.raises(RunError, match=f"no run is called 'nope'; the latest: {run.id}"):
        find_run("nope", cache_dir=cache_dir)


def test_a_log_line_cut_short_by_a_kill_is_not_a_record(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(), cache_dir=cache_dir)
    before = run.records()
    with (run.folder / "records.jsonl").open("a") as file:
        file.write('{"kind": "epo')
    assert run.records() == before
    run.append_record({"kind": "probe", "epoch": 4})
    assert run.records() == [*before, {"kind": "probe", "epoch": 4}]


@pytest.mark.parametrize("kind", ["ridge", "procrustes", "cca"])
def test_adapters_that_are_solved_for_are_a_run_of_one_epoch(cache_dir: Path, kind: str) -> None:
    paired_sets(cache_dir)
    run = fit(toy(adapter__type=kind, adapter__regularization=0.1), cache_dir=cache_dir)
    info = run.info()
    assert (info["status"], info["best_epoch"], info["adapter"]) == ("finished", 1, kind)
    assert info["solved"] is not None
    (record,) = epochs(run)
    assert record["epoch"] == 1
    assert "train" not in record
    pair, epoch = load_pair(run)
    assert epoch == 1
    assert pair.image.layers[-1].out_features == info["embed_dim"]
    judged = evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)
    untrained = epochs(fit(toy(), cache_dir=cache_dir))[0]
    recall = judged["embeddings"]["retrieval"]["image_to_text"]["r10"]
    assert recall > untrained["retrieval"]["image_to_text"]["r10"]


def test_standardised_input_is_that_of_the_training_features(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    run = fit(toy(adapter__input_norm="standardize"), cache_dir=cache_dir)
    from align_cache.store import open_feature_set

    features = open_feature_set("toy", "image", cache_dir=cache_dir)
    train = np.flatnonzero(np.asarray(features.splits) == "train")
    weights, _ = load_adapters(run.checkpoints, "last")
    mean = next(tensor for name, tensor in weights.items() if name.startswith("image") and "mean" in name)
    assert np.allclose(mean.numpy(), features.take(train).astype(np.float64).mean(0), atol=1e-3)


def test_a_run_that_was_stopped_before_its_first_epoch_is_gone_on_with(cache_dir: Path) -> None:
    paired_sets(cache_dir)
    whole = fit(toy(), cache_dir=cache_dir)
    started = start(toy(), Opened(cache_dir)).run
    assert started.info()["status"] == "running"
    resumed = resume_fit(started.id, cache_dir=cache_dir)
    assert resumed.info()["status"] == "finished"
    assert without_durations(resumed.records()) == without_durations(whole.records())
