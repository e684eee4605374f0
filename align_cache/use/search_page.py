"""What a search found as one HTML file with small pictures in it, that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from align_cache.files import publish_text
from align_cache.reporting import html, prose
from align_cache.reporting.document import Section, document
from align_cache.reporting.gallery import picture_card
from align_cache.reporting.wording import number
from align_cache.use.found import Answer, Found
from align_cache.use.small_pictures import data_url
from align_cache.use.use_tables import where

Pictures = Mapping[str, str]
"""Data URLs by image id."""


def publish_search(found: Found, path: Path) -> Path:
    """Write what was found as a page, and return its path; where pictures are absent it says why."""
    wanted = {hit.image_id for answer in found.answers for hit in answer.hits if hit.image_id is not None}
    pictures, problems = found.album.small(wanted)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_text(path, search_page(found, pictures, problems=problems))
    return path


def search_page(found: Found, pictures: Pictures, *, problems: Sequence[str] = ()) -> str:
    """Return what was found as HTML; ``problems`` say why pictures are absent."""
    sections: list[Section] = [
        (f"query-{number}", _heading(answer), [_cards(answer, pictures)])
        for number, answer in enumerate(found.answers, start=1)
    ]
    title = f"Search in {found.dataset}"
    footer = f"Made by align-cache search. Numbers are cosine similarities; {found.find} nearest first."
    return document(title, _header(found, title, problems), sections, footer)


def _header(found: Found, title: str, problems: Sequence[str]) -> str:
    warning = ""
    if found.untrained:
        names = ", ".join(found.untrained)
        warning = html.paragraph(f"UNTRAINED: {names}. {prose.UNTRAINED}", kind="warning")
    lines = (*found.notes, *(f"pictures: {problem}" for problem in problems))
    notes = "".join(html.paragraph(f"Note: {line}.", kind="note") for line in lines)
    return f"{html.paragraph(where(found), kind='where')}{html.heading(title)}{warning}{notes}"


def _heading(answer: Answer) -> str:
    return Path(answer.query).name if answer.is_image else answer.shown


def _cards(answer: Answer, pictures: Pictures) -> str:
    cards = [_asked(answer)] if answer.is_image else []
    cards += [
        picture_card(
            str(hit.rank),
            hit.sample_id,
            words=hit.caption,
            picture=None if hit.image_id is None else pictures.get(hit.image_id),
            value=number(hit.similarity, 3),
        )
        for hit in answer.hits
    ]
    return f'<div class="gallery"><div class="answers">{"".join(cards)}</div></div>'


def _asked(answer: Answer) -> str:
    """Return the card of the image that was searched with, its picture where it is a file."""
    file = Path(answer.query)
    picture = data_url(file.read_bytes(), answer.query) if file.is_file() else None
    return picture_card("searched with", file.name, words=None, picture=picture, kind="own")
