"""The rules of the house: who may import whom, and what a command may pull in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import align_cache

PACKAGE = Path(align_cache.__file__).parent

BASE = {
    *("_version", "errors", "files", "lock", "runtime", "progress", "config", "results", "splits"),
    *("run_records", "snapshots", "settings", "shares", "ray_cluster"),
}
"""What any room may use."""
MAY_IMPORT = {
    "corruption": set(),
    "closed_form": set(),
    "metrics": set(),
    "losses": {"adapters"},
    # Stage 1
    "store": {"corruption"},
    "sources": {"corruption"},
    "encoders": {"sources", "store"},
    "extraction": {"corruption", "encoders", "sources", "store"},
    # Stage 2
    "adapters": {"closed_form", "store"},
    "pairing": {"adapters", "metrics", "store"},
    "probes": {"adapters", "metrics", "store"},
    "training": {"adapters", "closed_form", "losses", "metrics", "pairing", "probes", "store"},
    "sweeps": {"training"},
    # Stage 3
    "judging": {"adapters", "corruption", "metrics", "pairing", "probes", "store"},
    "reporting": {"judging", "studies", "sweeps"},
}
"""Beyond the base; rooms that are not named stand on top and may use all of these, and none of them those."""
RECORDS = {"sweeps.records", "studies.records", "studies.results"}
"""What reporting reads of sweeps and studies, which train."""
PURE = ("metrics", "losses", "training/schedule", "closed_form", "corruption")


def imported(path: Path) -> set[tuple[str, ...]]:
    """Every module below align_cache that a file imports, wherever it stands, as the parts of its name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {tuple(name.split(".")[1:]) for name in names if name.startswith("align_cache.")}
    return found


def imports(path: Path) -> set[str]:
    """First component below align_cache of each."""
    return {name[0] for name in imported(path)}


def modules(*rooms: str) -> list[Path]:
    files = [PACKAGE / f"{room}.py" for room in rooms if (PACKAGE / f"{room}.py").exists()]
    return files + [path for room in rooms for path in (PACKAGE / room).rglob("*.py")]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_stages_meet_on_disk_only(room: str) -> None:
    paths = modules(room)
    assert paths
    for path in paths:
        assert imports(path) <= BASE | MAY_IMPORT[room] | {room}, path


def test_the_base_stands_on_itself_alone() -> None:
    for path in modules(*BASE):
        assert imports(path) <= BASE | {"corruption"}, path  # settings name the kinds of noise


def test_reporting_reads_records_and_trains_nothing() -> None:
    for path in modules("reporting"):
        used = {".".join(name[:2]) for name in imported(path) if name[0] in ("sweeps", "studies")}
        assert used <= RECORDS, path


def test_losses_and_metrics_know_nothing_of_files_or_settings() -> None:
    for path in modules(*PURE):
        assert imports(path) <= {"errors", "metrics", "adapters", "losses", "closed_form", "corruption"}, path


def test_below_the_stage_functions_there_are_no_config_objects() -> None:
    stage_functions = {
        *("extraction/extracting", "extraction/planning", "extraction/on_ray", "extraction/variants"),
        *("adapters/run_adapters", "training/assemble", "training/new_member", "training/fitting"),
        *("training/session", "training/run_shape", "sweeps/sweeping", "sweeps/trials", "sweeps/workers"),
        *("sweeps/on_ray", "studies/studying", "studies/judging", "studies/stressing"),
        *("judging/evaluation", "judging/run_features", "judging/drawn_pairs"),
        *("use/demo", "use/model", "use/model_card", "use/model_folder", "use/saved_model"),
        *("exporting/exported_rows", "__init__"),
    }
    for path in PACKAGE.rglob("*.py"):
        if "settings" in imports(path):
            name = path.relative_to(PACKAGE).with_suffix("").as_posix()
            assert name in stage_functions or path.parent.name in ("cli", "settings"), path


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
        (
            "from align_cache.training.fitting import fit",
            {"transformers", "torchvision", "datasets", "matplotlib"},
        ),
        (
            "from align_cache.judging.evaluation import evaluate",
            {"transformers", "torchvision", "datasets", "matplotlib"},
        ),
        ("from align_cache.reporting import report", {"torch", "transformers"}),
        (
            "from align_cache.extraction.extracting import extract",
            {"torch", "torchvision", "transformers", "datasets"},
        ),
        ("from align_cache.use.pictures import collect_pictures", {"torch", "transformers", "matplotlib"}),
        ("from align_cache.store import FeatureSet", {"torch"}),
        (
            "from align_cache.use.model import AlignedModel",
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
