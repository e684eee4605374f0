"""The documentation against the code: tables, links, settings, records and the tests it names."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest

import align_cache
from align_cache.config import setting_names
from align_cache.judging.evaluation import evaluate
from align_cache.results import Run
from align_cache.settings import EvalConfig, ExtractConfig, FitConfig
from align_cache.training.fitting import fit
from tests.config_tables import PAGE, SECTIONS, fill
from tests.unit.stored import paired_sets
from tests.unit.test_fit import labelled, toy

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "cache" / "README.md", *ROOT.glob("docs/**/*.md")]
)
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        destination = (page.parent / path).resolve() if path else page
        assert destination.exists(), target
        assert not anchor or anchor in anchors(destination), target


@pytest.mark.parametrize("folder", [ROOT / "docs", ROOT / "docs" / "adr"], ids=lambda folder: folder.name)
def test_the_index_of_a_folder_names_every_page(folder: Path) -> None:
    index = text_of(folder / "README.md")
    for page in folder.glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],  # which tells of names that were
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_name_of_the_package_that_a_page_gives_is_there(page: Path) -> None:
    for path in re.findall(r"\balign_cache(?:\.\w+)+", text_of(page)):
        assert pkgutil.resolve_name(path) is not None, path
    for program in re.findall(r"^```python\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("align_cache"):
                for alias in node.names:
                    assert pkgutil.resolve_name(f"{node.module}:{alias.name}") is not None, alias.name


def test_the_site_has_every_page() -> None:
    config = text_of(ROOT / ".ci" / "mkdocs.yml")
    for page in (ROOT / "docs").glob("*.md"):
        assert re.search(rf"^ +- (?:\w+: )?{re.escape(page.name)}$", config, flags=re.MULTILINE), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_stands_inside_an_item_of_a_list_is_indented_by_four(page: Path) -> None:
    """Python-Markdown, which makes the site, takes less for the end of the list."""
    inside = re.findall(
        r"^ {1,3}(?:[-*] |\d+\. ).*$|(?<=\n\n) {1,3}\S.*$", prose_of(page), flags=re.MULTILINE
    )
    assert not inside


def test_the_reference_has_every_public_name() -> None:
    """All but the settings, whose fields are the tables of the configuration page."""
    shown = re.findall(r"^::: align_cache\.(\w+)$", text_of(ROOT / "docs" / "api-reference.md"), re.MULTILINE)
    settings = {name for name in align_cache.__all__ if name.endswith("Config")}
    assert sorted(shown) == sorted({*align_cache.__all__} - settings - {"__version__"})


def test_the_configuration_page_has_the_settings_as_they_are() -> None:
    page = text_of(PAGE)
    assert set(re.findall(r"<!-- table (\w+) -->", page)) == set(SECTIONS)
    assert page == fill(page), "docs/configuration.md is out of date; run: python -m tests.config_tables"


def test_every_setting_says_what_it_is() -> None:
    for model in SECTIONS.values():
        for key, field in model.model_fields.items():
            assert field.description or key in SECTIONS, f"{model.__name__}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_set_option_names_a_setting(page: Path) -> None:
    known = {*setting_names(FitConfig), *setting_names(ExtractConfig)}
    for key in re.findall(r"--set '?([a-z]\w*(?:\.\w+)*)=", text_of(page)):
        assert key in known or key.startswith("options."), key


def named_tests() -> list[tuple[str, str]]:
    found = {named for page in PAGES for named in NAMED_TEST.findall(text_of(page))}
    return sorted(found)


@pytest.mark.parametrize(("file", "name"), named_tests())
def test_every_test_that_a_page_names_exists(file: str, name: str) -> None:
    tree = ast.parse(text_of(ROOT / file))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_of_the_reliability_page_names_a_test() -> None:
    lines = text_of(ROOT / "docs" / "reliability.md").splitlines()
    headers = [i for i, line in enumerate(lines) if line.startswith("| fault |")]
    assert headers
    for header in headers:
        for line in lines[header + 2 :]:
            if not line.startswith("|"):
                break
            assert NAMED_TEST.search(line), line


def documented_keys(first_header: str) -> set[str]:
    """The keys in back-ticks in the first column of a table of docs/training.md."""
    lines = text_of(ROOT / "docs" / "training.md").splitlines()
    start = lines.index(f"| {first_header} | what |") + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(line.split("|")[1])
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    cache_dir = tmp_path_factory.mktemp("cache")
    paired_sets(cache_dir)
    labelled(cache_dir)
    run = fit(toy(evaluation__probe="classes", evaluation__downstream_eval_frequency=4), cache_dir=cache_dir)
    evaluate(run, EvalConfig(k=3, probe="classes", permutations=3), cache_dir=cache_dir)
    return run


@pytest.mark.parametrize("kind", ["step", "epoch", "probe"])
def test_the_records_of_training_have_the_documented_keys(kind: str, run: Run) -> None:
    last = [record for record in run.records() if record["kind"] == kind][-1]
    assert set(last) == documented_keys(f"{kind} key")


def test_an_evaluation_has_the_documented_keys(run: Run) -> None:
    (record,) = run.results()
    assert set(record) == documented_keys("evaluation key")
    for measured in ("features", "embeddings"):
        assert set(record[measured]) == documented_keys("measured key")


def test_run_json_has_the_documented_keys(run: Run) -> None:
    assert set(run.info()) == documented_keys("run key")


def test_the_run_folder_has_the_documented_files(run: Run) -> None:
    kept = {re.sub(r"\d{4}", "0007", str(path.relative_to(run.folder))) for path in run.folder.rglob("*.*")}
    assert kept <= documented_files(), "figures and the report come later"


def documented_files() -> set[str]:
    text = text_of(ROOT / "docs" / "training.md")
    table = text[text.index("| file | what |") : text.index("### `run.json`")]
    return set(re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE))
