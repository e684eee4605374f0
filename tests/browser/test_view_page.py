"""The page in a real browser, headless: every section, pan, zoom, hover, search; a silent console."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_cache.results import Run
from align_cache.viewing.server import PageServer
from tests.unit.viewed import drawn_run, serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

WAIT_MS = 20_000
MARGIN_PX = 16
"""Left free around the points when all are shown."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    cache_dir = tmp_path_factory.mktemp("cache")
    return cache_dir, drawn_run(cache_dir)


@pytest.fixture(scope="module")
def server(drawn: tuple[Path, Run]) -> Iterator[PageServer]:
    with serving("latest", drawn[0]) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, server: PageServer, drawn: tuple[Path, Run]) -> Iterator[Open]:
    """Open a section; at the end the browser must have had nothing to complain of."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(WAIT_MS)
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: said.append(f"error: {error}"))
    tab.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    tab.on("request", lambda request: asked.append(request.url))

    def open_section(section: str) -> Any:
        tab.goto(f"{server.url}#{section}/{drawn[1].id}")
        return tab

    yield open_section
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(server.url)] == [], "it asks nobody else"


@pytest.fixture
def on_map(opened: Open, server: PageServer, drawn: tuple[Path, Run]) -> tuple[Any, dict[str, Any]]:
    """The map with all points in view, and what it was drawn from."""
    tab = opened("map")
    tab.wait_for_selector(".stage[aria-busy=false]")
    return tab, server.viewer.map(drawn[1], "pca")


def places(tab: Any, points: dict[str, Any]) -> np.ndarray:
    """Where images, and after them captions, stand on the screen while all are shown, shape (2n, 2)."""
    box = tab.locator("canvas").bounding_box()
    cloud = np.array([points["image"], points["text"]]).reshape(-1, 2)
    across, up = np.abs(cloud).max(axis=0)
    scale = min((box["width"] / 2 - MARGIN_PX) / across, (box["height"] / 2 - MARGIN_PX) / up)
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    return middle + cloud * [scale, -scale]


def apart(at: np.ndarray) -> np.ndarray:
    """How far the nearest other point is, shape (n,)."""
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return distance.min(axis=1)


def lone(tab: Any, points: dict[str, Any]) -> int:
    """The image that has most room around it."""
    return int(apart(places(tab, points))[: points["n"]].argmax())


def told(tab: Any) -> str:
    tab.wait_for_selector(".tip:not([hidden])")
    return str(tab.inner_text(".tip"))


def width_of(tab: Any, picture: str) -> int:
    """The width of the first such picture once it is there."""
    decoded = "image => image.decode().then(() => image.naturalWidth)"
    return int(tab.locator(picture).first.evaluate(decoded))


def hover(tab: Any, x: float, y: float) -> None:
    tab.mouse.move(x + 40, y + 40)
    tab.mouse.move(x, y)


def test_the_runs_have_a_table_and_four_curves_that_are_read_under_the_pointer(
    opened: Open, drawn: Any
) -> None:
    tab = opened("runs")
    tab.wait_for_selector("#runs figure svg")
    assert tab.locator("#runs figure").count() == 4
    assert drawn[1].id in tab.inner_text("#runs table")
    assert "UNTRAINED" in tab.inner_text("#runs .warning >> nth=0")
    loss = tab.locator("#runs figure").nth(1)
    epochs = [record for record in drawn[1].records() if record["kind"] == "epoch"]
    assert f"{epochs[-1]['val']['loss']:.3f}" in loss.inner_text()
    box = loss.locator("svg").bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 46 / 560, box["y"] + box["height"] / 2)
    assert f"epoch 0\n{epochs[0]['val']['loss']:.3f}" in loss.inner_text()


def test_a_run_is_ticked_off_and_on_again(opened: Open) -> None:
    tab = opened("runs")
    tab.wait_for_selector("#runs figure svg")
    tab.uncheck("#runs input[type=checkbox]")
    tab.wait_for_selector("text=Tick a run to see its curves.")
    tab.check("#runs input[type=checkbox]")
    tab.wait_for_selector("#runs figure svg")


class Held:
    """The first request to an address waits until it is let go; the others pass."""

    def __init__(self, tab: Any, address: str) -> None:
        self.tab, self.address, self.routes = tab, address, []
        tab.route(address, lambda route: route.continue_() if self.routes else self.routes.append(route))

    def let_go(self) -> None:
        with self.tab.expect_response(self.address):
            self.routes[0].continue_()
        self.tab.wait_for_timeout(100)


def test_curves_that_come_late_do_not_replace_newer_ones(opened: Open) -> None:
    tab = opened("runs")
    tab.wait_for_selector("#runs figure svg")
    held = Held(tab, "**/api/curves*")
    for act in (tab.uncheck, tab.check, tab.uncheck):
        act("#runs input[type=checkbox]")
    tab.wait_for_selector("text=Tick a run to see its curves.")
    held.let_go()
    assert tab.locator("#runs figure").count() == 0


def test_alignment_shows_the_measured_values_in_colour(opened: Open, drawn: Any) -> None:
    tab = opened("alignment")
    tab.wait_for_selector("#alignment .matrix")
    evaluation = drawn[1].evaluation()
    value = evaluation["embeddings"]["alignment"]["mutual_knn"]["image_text"]
    cell = tab.locator("#alignment .matrix td[title^='image – text']").nth(1)
    assert cell.inner_text().startswith(f"{value:.3f}")
    assert cell.evaluate("cell => cell.style.backgroundColor").startswith("rgb(")


def test_a_point_says_what_it_is_under_the_pointer(on_map: Any) -> None:
    tab, points = on_map
    row = lone(tab, points)
    hover(tab, *places(tab, points)[row])
    text = told(tab)
    assert points["captions"][row] in text
    assert points["ids"][row] in text
    assert width_of(tab, ".tip img") == 32
    box = tab.locator("canvas").bounding_box()
    tab.mouse.move(box["x"] + 2, box["y"] + 2)
    tab.wait_for_selector(".tip", state="hidden")


def test_images_are_red_and_captions_blue(on_map: Any) -> None:
    tab, points = on_map
    box, at = tab.locator("canvas").bounding_box(), places(tab, points)
    free = apart(at) > 12
    read = """(canvas, at) => {
        const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return at.map(([x, y]) => [...data.slice(4 * (y * width + x), 4 * (y * width + x) + 4)]);
    }"""
    pixels = tab.locator("canvas").evaluate(read, (at - [box["x"], box["y"]]).astype(int).tolist())
    red, _, blue, alpha = np.array(pixels).T
    image = np.arange(len(at)) < points["n"]
    assert (alpha > 200).all(), "there is a dot wherever a point lies"
    assert (free & image).any()
    assert (free & ~image).any()
    np.testing.assert_array_equal((red > blue)[free], image[free])


def test_points_follow_a_drag_and_the_arrow_keys(on_map: Any) -> None:
    tab, points = on_map
    row = lone(tab, points)
    x, y = places(tab, points)[row]
    box = tab.locator("canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    dx, dy = (40 if x < middle[0] else -40), (30 if y < middle[1] else -30)  # inwards: it stays in view
    tab.mouse.move(*middle)
    tab.mouse.down()
    tab.mouse.move(middle[0] + dx, middle[1] + dy, steps=4)
    tab.mouse.up()
    hover(tab, x + dx, y + dy)
    assert points["ids"][row] in told(tab)
    tab.locator("canvas").press("ArrowLeft" if dx > 0 else "ArrowRight")
    hover(tab, x + dx + np.sign(dx) * 60, y + dy)
    assert points["ids"][row] in told(tab)
    tab.click("button[title='show all']")
    hover(tab, x, y)
    assert points["ids"][row] in told(tab)


def test_what_is_under_the_wheel_stays_there_and_the_rest_moves_away(on_map: Any) -> None:
    tab, points = on_map
    row = lone(tab, points)
    before, box = places(tab, points), tab.locator("canvas").bounding_box()
    tab.mouse.move(*before[row])
    tab.mouse.wheel(0, -50)
    hover(tab, *before[row])
    assert points["ids"][row] in told(tab)
    after = before[row] + (before - before[row]) * np.exp(50 * 0.0015)
    corner, size = np.array([box["x"], box["y"]]), np.array([box["width"], box["height"]])
    seen = ((after > corner + 2) & (after < corner + size - 2)).all(axis=1)
    seen[[row, *range(points["n"], len(seen))]] = False
    other = int(np.where(seen, apart(after), 0).argmax())
    assert other != row
    assert np.linalg.norm(after[other] - before[other]) > 14, "beyond the pointer's reach"
    hover(tab, *after[other])
    assert points["ids"][other] in told(tab)


def test_the_keyboard_zooms_picks_and_lets_go(on_map: Any) -> None:
    tab, points = on_map
    canvas = tab.locator("canvas")
    canvas.press("+")
    canvas.press("-")
    canvas.press("Enter")
    tab.wait_for_selector("aside .hits li")
    assert tab.locator("aside .hits li").count() > 3
    assert tab.locator("aside .sentences li").count() > 3
    assert any(caption in tab.inner_text("aside .asked") for caption in points["captions"])
    canvas.press("Escape")
    tab.wait_for_selector("aside >> text=Point at a dot")


def test_a_click_shows_what_is_similar_and_a_hit_is_asked_about_in_turn(on_map: Any) -> None:
    tab, points = on_map
    row = lone(tab, points)
    tab.mouse.click(*places(tab, points)[row])
    tab.wait_for_selector("aside .hits li")
    assert points["ids"][row] in tab.inner_text("aside .asked")
    tab.click("aside .hits button >> nth=0")
    tab.wait_for_selector(f"aside .asked:not(:has-text('{points['ids'][row]}'))")


def test_what_is_similar_does_not_come_back_after_it_was_let_go(on_map: Any) -> None:
    tab, points = on_map
    held = Held(tab, "**/api/similar*")
    tab.mouse.click(*places(tab, points)[lone(tab, points)])
    tab.locator("#map canvas").press("Escape")
    held.let_go()
    assert "Point at a dot" in tab.inner_text("aside")


def test_images_can_be_hidden_and_t_sne_chosen(on_map: Any) -> None:
    tab, points = on_map
    row = lone(tab, points)
    tab.uncheck("input[data-name=image]")
    tab.check("input[data-name=pairs]")
    hover(tab, *places(tab, points)[row])
    tab.wait_for_timeout(200)
    assert tab.locator(".tip").is_hidden()
    tab.select_option("select[aria-label=layout]", "tsne")
    tab.wait_for_selector("#map p:has-text('t-SNE, perplexity')")


def test_a_sentence_finds_images_that_lead_to_the_map(opened: Open) -> None:
    tab = opened("search")
    tab.fill("#search input", "a small red circle")
    tab.press("#search input", "Enter")
    tab.wait_for_selector("#search .hits li")
    assert "a small red circle" in tab.inner_text("#search .lead")
    assert width_of(tab, "#search .hits img") == 32
    cosines = [float(text.replace("−", "-")) for text in tab.locator("#search .place span").all_inner_texts()]
    assert cosines == sorted(cosines, reverse=True)
    tab.click("text=Show on the map")
    tab.wait_for_selector("aside >> text=images that the search found are ringed")
    tab.go_back()
    tab.wait_for_selector("#search .hits li")
    tab.click("#search .hit >> nth=1")
    tab.wait_for_selector("aside .hits li")


def test_markup_in_a_sentence_stays_text(opened: Open) -> None:
    tab = opened("search")
    tab.fill("#search input", "<img src=x onerror=alert(1)><b>red</b>")
    tab.press("#search input", "Enter")
    tab.wait_for_selector("#search .hits li")
    assert "<b>red</b>" in tab.inner_text("#search .lead")
    assert tab.locator("#search .lead b, #search .lead img").count() == 0


def test_without_features_map_and_search_say_so_and_the_rest_is_there(
    browser: Any, drawn: tuple[Path, Run], tmp_path: Path
) -> None:
    cache_dir = shutil.copytree(drawn[0], tmp_path / "cache")
    shutil.rmtree(cache_dir / "features")
    said: list[str] = []
    with serving("latest", cache_dir) as bare:
        tab = browser.new_page()
        tab.set_default_timeout(WAIT_MS)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        for section in ("map", "search"):
            tab.goto(f"{bare.url}#{section}/{drawn[1].id}")
            tab.wait_for_selector(f"#{section} .message >> text=no finished feature sets")
            assert "align-cache extract" in tab.inner_text(f"#{section} .hint")
        tab.goto(f"{bare.url}#alignment/{drawn[1].id}")
        tab.wait_for_selector("#alignment .matrix")
        tab.close()
    assert said == []


@pytest.mark.parametrize("width", [1200, 700, 380])
@pytest.mark.parametrize("section", ["runs", "alignment", "map", "search"])
def test_nothing_is_wider_than_the_window(section: str, width: int, opened: Open) -> None:
    tab = opened(section)
    tab.set_viewport_size({"width": width, "height": 800})
    tab.wait_for_selector(
        f"#{section} figure, #{section} .matrix, .stage[aria-busy=false], #{section} input[type=search]"
    )
    assert tab.locator("html").evaluate("page => page.scrollWidth") <= width
