"""What a user of the installed package writes; `.ci/run` has mypy read it strictly, outside the tree."""

from pathlib import Path
from typing import assert_type

from align_cache import (
    AlignedModel,
    EvalConfig,
    ExtractConfig,
    FeatureSet,
    Run,
    doctor,
    evaluate,
    extract,
    find_run,
    fit,
    fit_config,
    open_feature_set,
    report,
    search,
    sweep,
    sweep_config,
)


def main(cache: Path) -> None:
    """Go through the main job."""
    for made in extract(
        ExtractConfig(dataset="shapes", encoders=("small-cnn", "small-text")), cache_dir=cache
    ):
        print(made.name, made.rows)
    features = open_feature_set("shapes", "small-cnn", cache_dir=cache)
    assert_type(features, FeatureSet)
    print(features.array().shape)
    run = fit(fit_config(file=Path("linear.toml")), cache_dir=cache)
    assert_type(run, Run)
    record = evaluate(run, EvalConfig(), cache_dir=cache)
    print(record["kind"], find_run(cache_dir=cache).id)
    assert_type(report(run.folder), Path)
    assert_type(sweep(sweep_config(Path("sweep.toml")), cache_dir=cache), Path)
    model = AlignedModel.from_run(run, cache_dir=cache)
    assert_type(model, AlignedModel)
    print(model.encode_text(["a red square"]).shape, model.temperature)
    for answer in search(model, ["a red square"], cache_dir=cache).answers:
        print(answer)
    assert_type(doctor(cache_dir=cache).usable, bool)
