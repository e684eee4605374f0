"""Precedence, every error at once, and configs that hold the documents' values."""

import tomllib
from pathlib import Path

import pytest

from align_cache.config import flag_layer, resolve, set_layer, setting_names, to_toml
from align_cache.errors import ConfigError
from align_cache.settings import ExtractConfig, FitConfig, fit_config

CONFIGS = Path(__file__).parents[2] / "configs"

# The first document's EXPERIMENTS, as it prints them; the right side is where the setting lives here.
COMMON = {
    "data.batch_size": 256,
    "data.num_samples": 12800,
    "optim.gradient_accumulation_steps": 2,
    "optim.min_lr": 1e-6,
    "optim.epochs": 20,
    "loss.distribution_matching": True,
    "optim.clip_grad_norm": 0.5,
    "evaluation.downstream_eval_frequency": 20,
    "log.viz_frequency": 1,
    "log.log_frequency": 10,
    "log.project_name": "multimodal-alignment",
    "log.save_dir": "./experiments",
}
LINEAR = COMMON | {
    "adapter.type": "linear",
    "optim.lr": 2e-4,
    "loss.temperature": 0.15,
    "optim.warmup_epochs": 2,
    "optim.num_cycles": 0.5,
    "loss.variance_weight": 0.3,
    "optim.weight_decay": 0.005,
    "loss.label_smoothing": 0.1,
    "adapter.dropout": 0.15,
    "evaluation.downstream_batch_size": 256,
}
MLP = COMMON | {
    "adapter.type": "mlp",
    "optim.lr": 1e-4,
    "loss.temperature": 0.2,
    "optim.warmup_epochs": 3,
    "loss.variance_weight": 0.4,
    "optim.weight_decay": 0.02,
    "loss.label_smoothing": 0.15,
    "adapter.dropout": 0.2,
    "adapter.mlp_hidden_dims": [1024, 1024],
    "adapter.activation": "gelu",
    "adapter.norm": "layer",
    "evaluation.downstream_batch_size": 128,
    "evaluation.classifier_hidden_dim": 512,
}
MLP_BASE = {
    "adapter.mlp_hidden_dims": [2048, 1024],
    "adapter.dropout": 0.1,
    "loss.temperature": 0.07,
    "loss.label_smoothing": 0.1,
    "loss.variance_weight": 0.1,
    "optim.lr": 5e-5,
    "optim.min_lr": 1e-6,
    "optim.weight_decay": 0.01,
    "optim.warmup_epochs": 2,
    "optim.epochs": 15,
    "optim.gradient_accumulation_steps": 2,
    "optim.clip_grad_norm": 1.0,
    "data.num_samples": 12800,
    "data.batch_size": 256,
    "data.split": "fraction",
    "data.val_fraction": 0.25,
    "evaluation.downstream_batch_size": 128,
    "evaluation.classifier_hidden_dim": 512,
    "evaluation.downstream_eval_frequency": 15,
    "log.viz_frequency": 1,
}


def look_up(nested: object, dotted: str) -> object:
    for part in dotted.split("."):
        assert isinstance(nested, dict)
        nested = nested[part]
    return nested


@pytest.mark.parametrize(
    ("name", "expected"), [("linear", LINEAR), ("mlp", MLP), ("mlp-base", MLP_BASE)], ids=lambda v: str(v)[:8]
)
def test_a_shipped_config_states_the_documents_values(name: str, expected: dict[str, object]) -> None:
    raw = tomllib.loads((CONFIGS / f"{name}.toml").read_text())
    for key, value in expected.items():
        assert look_up(raw, key) == value, key
    assert fit_config(file=CONFIGS / f"{name}.toml").adapter.type == name.split("-")[0]


# What the second document states; its formula sums over texts and has neither smoothing nor a reference.
SECOND = {
    "data.dataset": "flickr8k",
    "data.reference": "none",
    "loss.contrastive": "infonce",
    "loss.direction": "text_to_image",
    "loss.label_smoothing": 0.0,
    "loss.distribution_matching": False,
    "optim.epochs": 30,
}


@pytest.mark.parametrize(
    ("name", "pair"),
    [("clip-bert", ("clip-vit-b32", "bert", None)), ("lstm-cnn", ("resnet18", "tokens", "lstm"))],
)
def test_the_second_documents_pairs_have_what_it_states(name: str, pair: tuple[str, str, str | None]) -> None:
    config = fit_config(file=CONFIGS / f"{name}.toml")
    values = config.model_dump(mode="json")
    for key, value in SECOND.items():
        assert look_up(values, key) == (None if value == "none" else value), key
    assert (config.data.image_encoder, config.data.text_encoder, config.adapter.text_type) == pair


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_without_a_file_an_adapter_has_its_experiments_values(name: str) -> None:
    from_flag = fit_config(flags={"adapter.type": name}).model_dump(mode="json")
    from_file = fit_config(file=CONFIGS / f"{name}.toml").model_dump(mode="json")
    from_file["log"]["save_dir"] = None  # the one value that only the file has: where runs go
    assert from_flag == from_file


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_the_head_of_a_shipped_config_names_its_command(path: Path) -> None:
    command = {"sweep": "sweep", "variance-aware": "study", "text-towers": "study"}.get(path.stem, "fit")
    assert f"align-cache {command} --config configs/{path.name}" in path.read_text().split("\n\n")[0]


def test_a_flag_beats_set_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("seed = 1\n[optim]\nlr = 1e-3\nepochs = 7\nweight_decay = 0.5\n")
    config = fit_config(
        file=file, assignments=("optim.lr=2e-3", "optim.epochs=8"), flags={"optim.lr": 3e-3, "seed": None}
    )
    assert (config.optim.lr, config.optim.epochs, config.optim.weight_decay, config.seed) == (3e-3, 8, 0.5, 1)
    assert config.data.batch_size == 256


def test_all_errors_come_at_once_with_origin_and_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("sed = 1\n[optim]\nlrr = 1\n")
    with pytest.raises(ConfigError) as caught:
        fit_config(file=file, assignments=("loss.temperature=-1", "data.captions_per_image=some", "epochs=3"))
    text = caught.value.message
    assert text.startswith("5 settings cannot be used:")
    assert f"{file}: sed is not a setting (did you mean seed?)" in text
    assert f"{file}: optim.lrr is not a setting (did you mean optim.lr?)" in text
    assert "--set: loss.temperature = -1: input should be greater than or equal to 0.001" in text
    assert "--set: epochs is not a setting (did you mean optim.epochs?)" in text
    assert text.count("data.captions_per_image") == 1
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("optim.min_lr=1", "min_lr = 1.0 is above lr"),
        ("optim.warmup_epochs=20", "leaves none of 20 epochs"),
        ("data.reference=none", "loss.distribution_matching needs data.reference"),
        ("loss={learn_temperature=true, temperature=2.0}", r"held in \[0.01, 1\], and starts at 2.0"),
    ],
)
def test_values_that_contradict_each_other_are_refused(assignment: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        fit_config(assignments=(assignment,))


def test_a_config_survives_being_written_and_read(tmp_path: Path) -> None:
    config = fit_config(
        assignments=("optim.clip_grad_norm=none", "data.num_samples=none", "log.save_dir=a/b", "seed=3")
    )
    assert config.optim.clip_grad_norm is None
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert fit_config(file=tmp_path / "c.toml") == config


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        FitConfig().seed = 3


def test_every_extraction_setting_is_marked_identity_or_provenance() -> None:
    for name, field in ExtractConfig.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), name
        assert extra["role"] in {"identity", "provenance"}, name


def test_weights_for_an_encoder_that_is_not_run_are_refused() -> None:
    layers = [
        flag_layer({"dataset": "shapes", "encoders": ("resnet18",)}),
        set_layer(["weights.dinov2=random"]),
    ]
    with pytest.raises(ConfigError, match="weights are given for dinov2"):
        resolve(ExtractConfig, layers)


def test_every_setting_has_a_name_to_be_suggested() -> None:
    names = list(setting_names(FitConfig))
    assert "adapter.mlp_hidden_dims" in names
    assert len(names) == len(set(names))
