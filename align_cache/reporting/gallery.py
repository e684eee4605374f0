"""The gallery on the page: drawn captions, the images that each finds first, hit or miss."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from align_cache.reporting import html
from align_cache.reporting.tables import Record
from align_cache.reporting.wording import count, number, text
from align_cache.run_records import RunRecords, dig

# What is embedded comes from a file of the run folder: nothing but a small picture is let through.
_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*")


def gallery(run: RunRecords) -> list[str]:
    """Return the parts of the gallery's section, or the line that says that none was drawn."""
    drawn = dig(run.evaluation, "gallery")
    if drawn is None:
        return [html.paragraph("Not drawn: align-cache eval draws one.", kind="missing")]
    note = run.pictures_note
    if run.pictures is None:
        note = "no pictures were collected: align-cache report does that"
    shown = "".join(_query(query, drawn, run.pictures or {}) for query in drawn["queries"])
    return [
        html.paragraph(how_drawn(drawn, text(dig(run.evaluation, "split")))),
        f'<ol class="gallery">{shown}</ol>',
        html.paragraph(f"Pictures: {note}.", kind="note") if note else "",
    ]


def how_drawn(drawn: Record, split: str) -> str:
    """Say how the shown captions were chosen, and how common each kind is among all."""
    shown, every = len(drawn["queries"]), count(drawn["n_queries"])
    hits, near, misses = (count(drawn[kind]) for kind in ("hits", "near", "misses"))
    return (
        f"{shown} of the {every} captions of the {split} split, each looking for its own image among"
        f" {count(drawn['n_candidates'])}. They were drawn at random (seed {drawn['seed']}), in turn from the"
        f" {hits} hits (own image first), the {near} near ones (second to tenth) and the {misses} misses, so"
        " the mix shown here is not the mix of all. Numbers are cosine similarities; an image stands with"
        " its first caption."
    )


def _query(query: Record, drawn: Record, pictures: Mapping[str, str | None]) -> str:
    sign, word, tone = _verdict(query["rank"])
    rank = f"own image at rank {count(query['rank'])} of {count(drawn['n_candidates'])}"
    words = query["caption"]
    asked = f"“{words}”" if words is not None else query["caption_id"]
    own = query["image"]
    answers = [_answer("own image", own, pictures, kind="own")]
    for place, image in enumerate(query["images"], start=1):
        right = image["image_id"] == own["image_id"]
        answers.append(_answer(f"{place}", image, pictures, kind="right" if right else ""))
    return (
        f'<li><p class="asked">{escape(asked)}</p><p class="verdict"><b class="{tone}">{sign} {word}</b>'
        f' {escape(rank)}</p><div class="answers">{"".join(answers)}</div></li>'
    )


def _verdict(rank: int) -> tuple[str, str, str]:
    """Return sign, word and tone: the word says it to whoever does not see the colour."""
    if rank == 1:
        return "✓", "hit", "good"
    return ("○", "near", "") if rank <= 10 else ("✗", "miss", "bad")


def _answer(head: str, image: Record, pictures: Mapping[str, str | None], *, kind: str) -> str:
    sample_id = image["image_id"]
    mark = " ✓ right" if kind == "right" else ""
    return picture_card(
        f"{head}{mark}",
        sample_id,
        words=image["caption"],
        picture=pictures.get(sample_id),
        value=number(image["similarity"], 3),
        kind=kind,
    )


def picture_card(
    head: str, name: str, *, words: str | None, picture: str | None, value: str = "", kind: str = ""
) -> str:
    """Return one picture of a gallery.

    Parameters
    ----------
    head, value : str
        Above it, on the left and on the right.
    name : str
        What the picture is called; stands in its place where there is none.
    words : str or None
        Below it.
    picture : str or None
        A data URL; what is no PNG or JPEG is left out.
    kind : {"", "own", "right"}
        How it is marked.
    """
    described = text(words) if words else name
    if picture is not None and _PICTURE.fullmatch(picture):
        seen = f'<img class="picture" alt="{escape(described)}" src="{picture}">'
    else:
        seen = f'<div class="picture">{escape(name)}</div>'
    told = f"{name}: {words}" if words else name
    return (
        f'<div class="answer {escape(kind)}" title="{escape(told)}">'
        f'<p class="place">{escape(head)}<span>{escape(value)}</span></p>{seen}'
        f'<p class="words">{escape(words or "")}</p></div>'
    )
