"""The rules of the house: who may import whom, and what a command may pull in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import align_cache

PACKAGE = Path(align_cache.__file__).parent

STAGE_1 = (
    *("sources", "encoders", "decoding", "encoding", "image_encoding", "caption_encoding"),
    *("extraction", "planning", "pictures", "vocabulary"),
    *("stored_captions", "origin", "variants", "ray_extraction"),
)
STAGE_2 = (
    *("assemble", "trainer", "validation", "losses", "schedule", "fitting", "session", "stacking"),
    *("batches", "curriculum", "member", "new_member", "run_loss", "run_shape"),
    *("sweeping", "sweep_workers", "ray_sweep", "tpe", "trials"),
)
STAGE_3 = (
    *("evaluation", "run_features", "zero_shot", "reporting", "plotting", "drawn_pairs", "study_judging"),
    *("noisy_pairs", "stress_comparison", "stress_record"),
)
USE = (
    *("diagnosis", "exporting", "viewing"),
    *("model", "embedder", "class_choice", "given_features", "fresh_features", "known_encoder"),
    *("model_folder", "saved_model", "model_card", "transformer"),
    *("searching", "candidates", "first_captions", "album", "found", "search_page", "use_tables"),
    *("embedding_file", "image_files", "nearest"),
)
"""The rim: it may import every stage, and no stage imports it."""
PURE = ("metrics", "losses", "schedule", "closed_form", "corruption", "feature_noise")


def imports(path: Path) -> set[str]:
    """First component below align_cache of every import in a file, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("align_cache.")}
    return found


def modules(*rooms: str) -> list[Path]:
    files = [PACKAGE / f"{room}.py" for room in rooms if (PACKAGE / f"{room}.py").exists()]
    return files + [path for room in rooms for path in (PACKAGE / room).rglob("*.py")]


@pytest.mark.parametrize(
    ("stage", "others"),
    [
        (STAGE_1, (*STAGE_2, *STAGE_3, *USE)),
        (STAGE_2, (*STAGE_1, *STAGE_3, *USE)),
        (STAGE_3, (*STAGE_1, *STAGE_2, *USE)),
    ],
    ids=["extraction", "training", "judging"],
)
def test_stages_meet_on_disk_only(stage: tuple[str, ...], others: tuple[str, ...]) -> None:
    for path in modules(*stage):
        assert not imports(path) & set(others), path


def test_losses_and_metrics_know_nothing_of_files_or_settings() -> None:
    for path in modules(*PURE):
        assert imports(path) <= {"errors", "metrics", "adapters", "losses", "closed_form", "corruption"}, path


def test_below_the_stage_functions_there_are_no_config_objects() -> None:
    stage_functions = {
        "extraction.py",
        "planning.py",
        "ray_extraction.py",
        "ray_sweep.py",
        "assemble.py",
        "new_member.py",
        "fitting.py",
        "session.py",
        "run_shape.py",
        "run_features.py",
        "drawn_pairs.py",
        "sweeping.py",
        "studying.py",
        "study_judging.py",
        "trials.py",
        "sweep_workers.py",
        "evaluation.py",
        "stressing.py",
        "variants.py",
        "demo.py",
        "run_adapters.py",
        "model.py",
        "model_card.py",
        "model_folder.py",
        "saved_model.py",
        "exported_rows.py",
        "__init__.py",
    }
    for path in PACKAGE.rglob("*.py"):
        if "settings" in imports(path):
            assert path.name in stage_functions or path.parent.name in ("cli", "settings"), path


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import align_cache", {"torch", "numpy", "h5py", "pydantic", "typer"}),
        (
            "from align_cache.cli import main; main(['--help'])",
            {"torch", "numpy", "h5py", "pydantic", "matplotlib"},
        ),
        ("from align_cache.fitting import fit", {"transformers", "torchvision", "datasets", "matplotlib"}),
        (
            "from align_cache.evaluation import evaluate",
            {"transformers", "torchvision", "datasets", "matplotlib"},
        ),
        ("from align_cache.reporting import report", {"torch", "transformers"}),
        ("from align_cache.extraction import extract", {"torch", "torchvision", "transformers", "datasets"}),
        ("from align_cache.pictures import collect_pictures", {"torch", "transformers", "matplotlib"}),
        ("from align_cache.store import FeatureSet", {"torch"}),
        (
            "from align_cache.model import AlignedModel",
            {"transformers", "torchvision", "datasets", "matplotlib", "sklearn"},
        ),
    ],
    ids=["package", "help", "fit", "evaluate", "report", "extract", "pictures", "store", "model"],
)
def test_nothing_heavy_is_loaded_that_is_not_needed(statement: str, absent: set[str]) -> None:
    assert not loaded_after(statement) & absent


def test_the_public_names_are_what_the_package_says() -> None:
    for name in align_cache.__all__:
        assert getattr(align_cache, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        align_cache.nothing  # noqa: B018 - the access is what is tested


def test_a_verb_stays_a_function_whatever_was_imported_before() -> None:
    """An attribute of the package is bound to a submodule of that name as soon as it is imported."""
    submodules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    assert not submodules & set(align_cache.__all__)
