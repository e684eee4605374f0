"""Pieces of a page. Every string that comes from a record is escaped here and nowhere else."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from align_cache.reporting.headline import Tile
from align_cache.reporting.tables import Table
from align_cache.reporting.wording import NOT_MEASURED


def paragraph(words: str, *, kind: str = "") -> str:
    """Return a paragraph of plain words."""
    return f'<p class="{escape(kind)}">{escape(words)}</p>' if kind else f"<p>{escape(words)}</p>"


def section(anchor: str, heading: str, *parts: str) -> str:
    """Return a section; ``parts`` are HTML already."""
    return f'<section id="{escape(anchor)}"><h2>{escape(heading)}</h2>{"".join(parts)}</section>'


def tile(content: Tile) -> str:
    """Return one headline number with its label above and its meaning below."""
    value = f'<div class="value {escape(content.tone)}">{escape(content.value)}</div>'
    return (
        f'<div class="tile"><div class="label">{escape(content.label)}</div>{value}'
        f'<div class="detail">{escape(content.detail)}</div></div>'
    )


def table(content: Table) -> str:
    """Return a table with its title as caption and its note below."""
    head = "".join(_cell("th", cell, index, content) for index, cell in enumerate(content.columns))
    body = "".join(
        f"<tr>{''.join(_cell('td', cell, index, content) for index, cell in enumerate(row))}</tr>"
        for row in content.rows
    )
    shown_head = f"<thead><tr>{head}</tr></thead>" if any(content.columns) else ""
    kind = "" if shown_head else " facts"
    caption = f"<caption>{escape(content.title)}</caption>" if content.title else ""
    note = f'<p class="note">{escape(content.note)}</p>' if content.note else ""
    return f'<div class="table{kind}"><table>{caption}{shown_head}<tbody>{body}</tbody></table></div>{note}'


def _cell(tag: str, words: str, index: int, content: Table) -> str:
    kinds = ["label" if index < content.label_columns else "number"]
    kinds += ["missing"] if words == NOT_MEASURED else []
    return f'<{tag} class="{" ".join(kinds)}">{escape(words)}</{tag}>'


def figure(path: Path | None, caption: str) -> str:
    """Return a picture embedded in the page, or a line that says that there is none."""
    if path is None:
        return f'<p class="missing">{escape(caption)}: not measured in this run.</p>'
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def code(words: str) -> str:
    """Return a block of code or configuration."""
    return f"<pre><code>{escape(words)}</code></pre>"
