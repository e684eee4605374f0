"""What each address answers. A part that cannot be shown is an answer too: it says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib import resources
from typing import NamedTuple

from align_cache.errors import AlignCacheError
from align_cache.reporting.style import MODALITY_COLOURS
from align_cache.reporting.tsne import COLOURS
from align_cache.results import Record, Run
from align_cache.viewing.query import Query, Refusal
from align_cache.viewing.viewer import Viewer

HITS = 60
"""At most so many answers of a search."""

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = (
    *("style.css", "icon.svg", "main.js", "dom.js", "runs.js", "curves.js", "matrices.js"),
    *("map.js", "canvas.js", "grid.js", "stamps.js", "search.js", "hits.js"),
)
_MOST_ROWS = 999_999_999


class Answer(NamedTuple):
    """What goes back over the line."""

    status: HTTPStatus
    kind: str
    """Its content type."""
    content: bytes
    keep_s: int = 0
    """How long the browser may keep it."""


def answer(viewer: Viewer, path: str, query: Query) -> Answer:
    """Answer a request for a path.

    Raises
    ------
    Refusal
        For a path, a parameter, a run or a picture that there is not.
    """
    if path in _PAGE:
        return _file(_PAGE[path])
    if path == "/thumbnail":
        return _thumbnail(viewer, query)
    if path not in _QUESTIONS:
        raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this address")
    try:
        return as_json(_QUESTIONS[path](viewer, query))
    except AlignCacheError as error:
        return as_json({"unavailable": error.message, "hint": error.hint})


def as_json(record: Record, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """Return a record as an answer."""
    content = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return Answer(status, "application/json", content)


_PAGE = {"/": "page.html", **{f"/{name}": name for name in _FILES}}


def _file(name: str) -> Answer:
    content = (resources.files("align_cache.viewing") / "assets" / name).read_text(encoding="utf-8")
    if name == "style.css":
        content = _palette() + content
    return Answer(HTTPStatus.OK, f"{_KINDS[name.rpartition('.')[2]]}; charset=utf-8", content.encode("utf-8"))


def _palette() -> str:
    """Return the colours of the figures: image and text as in t-SNE, the others as everywhere."""
    colours = "".join(f"--{name}:{colour};" for name, colour in {**MODALITY_COLOURS, **COLOURS}.items())
    return f":root{{{colours}}}\n"


def _run(viewer: Viewer, query: Query) -> Run:
    name = query.text("run")
    run = viewer.run(name)
    if run is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"no run is called {name!r}")
    return run


def _thumbnail(viewer: Viewer, query: Query) -> Answer:
    run, sample_id = _run(viewer, query), query.text("image")
    try:
        found = viewer.thumbnail(run, sample_id)
    except AlignCacheError as error:
        raise Refusal(HTTPStatus.NOT_FOUND, error.message) from None
    if found is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"no picture of {sample_id!r}")
    return Answer(HTTPStatus.OK, f"image/{found.kind}", found.content, keep_s=3600)


def _similar(viewer: Viewer, query: Query) -> Record:
    row = query.count("row", low=0, high=_MOST_ROWS)
    found = viewer.similar(
        _run(viewer, query),
        row,
        query.choice("modality", ("image", "text")),
        query.count("k", low=1, high=HITS),
    )
    if found is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"there is no row {row}")
    return found


_QUESTIONS: Mapping[str, Callable[[Viewer, Query], Record]] = {
    "/api/runs": lambda viewer, query: viewer.runs(),
    "/api/curves": lambda viewer, query: viewer.curves(_run(viewer, query)),
    "/api/alignment": lambda viewer, query: viewer.matrices(_run(viewer, query)),
    "/api/map": lambda viewer, query: viewer.map(
        _run(viewer, query), query.choice("layout", ("pca", "tsne"))
    ),
    "/api/similar": _similar,
    "/api/searchable": lambda viewer, query: viewer.searchable(_run(viewer, query)),
    "/api/search": lambda viewer, query: viewer.search(
        _run(viewer, query), query.text("words"), query.count("k", low=1, high=HITS)
    ),
}
