"""The page: one HTML file with everything in it, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import escape
from importlib import resources
from pathlib import Path

from align_cache.reporting import html, prose, style
from align_cache.reporting.evaluation_tables import null_tables
from align_cache.reporting.explorer import explorer
from align_cache.reporting.headline import story, tiles, warnings
from align_cache.reporting.records import RunRecords, dig
from align_cache.reporting.run_table import run_table
from align_cache.reporting.space import Space
from align_cache.reporting.tables import (
    Table,
    alignment_table,
    distribution_table,
    hypothesis_table,
    probe_table,
    retrieval_table,
)
from align_cache.reporting.wording import NOT_MEASURED, text

# The browser itself refuses whatever would leave the file, should a string ever slip through unescaped.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def render(run: RunRecords, space: Space | None, figures: list[Path]) -> str:
    """Return the page of a run as HTML.

    Parameters
    ----------
    run : RunRecords
    space : Space or None
        The projected snapshots for the view that turns; None where the run has none.
    figures : list of Path
        The pictures drawn for this run; a section finds its own by file name.
    """
    pictures = {path.stem: path for path in figures}
    sections = list(_sections(run, space, pictures))
    links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in sections)
    body = "".join(html.section(anchor, heading, *parts) for anchor, heading, parts in sections)
    name = text(run.record.get("id"))
    script = f"<script>{_asset('explorer.js')}</script>" if space is not None else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)} · align-cache</title>
<style>{_palette()}{_asset("page.css")}</style></head>
<body><header>{_header(run)}<nav>{links}</nav></header>
<main>{body}</main>
<footer>Made by align-cache report from {escape(run.folder.name)}. The pictures also lie in figures/.</footer>
{script}</body></html>
"""


def _header(run: RunRecords) -> str:
    record = run.record
    where = f"{text(record.get('project'))} · {text(record.get('dataset'))} · {text(record.get('created'))}"
    found = "".join(html.paragraph(line, kind="warning") for line in warnings(run))
    numbers = "".join(html.tile(tile) for tile in tiles(run))
    heading = f"<h1>{escape(text(record.get('id')))}</h1>"
    judged = (
        f"Headline numbers: {text(run.judged.get('split'))} split, epoch {text(run.judged.get('epoch'))}."
    )
    return (
        f"{html.paragraph(where, kind='where')}{heading}{found}{html.paragraph(story(run), kind='lead')}"
        f'<div class="tiles">{numbers}</div>{html.paragraph(judged, kind="note")}'
    )


def _sections(
    run: RunRecords, space: Space | None, pictures: Mapping[str, Path]
) -> Iterator[tuple[str, str, list[str]]]:
    """Yield anchor, heading and parts of each section, in reading order."""
    judged = run.judged
    yield "run", "What was run", [html.table(replace(run_table(run.record), title=""))]
    yield (
        "retrieval",
        "Does it work?",
        [
            html.paragraph(prose.RETRIEVAL),
            html.table(retrieval_table(judged)),
            html.figure(pictures.get("retrieval"), "Recall of the validation split after each epoch"),
        ],
    )
    yield (
        "alignment",
        "Alignment",
        [
            html.paragraph(prose.ALIGNMENT),
            html.figure(pictures.get("alignment"), "Kernel alignment of the four pairs after each epoch"),
            html.figure(pictures.get("alignment-heatmap"), "Alignment of each pair, now and on the way"),
            html.table(alignment_table(judged)),
            *map(html.table, null_tables(judged)),
        ],
    )
    yield (
        "hypotheses",
        "Hypotheses",
        [
            html.paragraph(prose.HYPOTHESES),
            html.figure(pictures.get("hypotheses-final"), "Margins of H1 and H2 with 95% intervals"),
            html.figure(
                pictures.get("hypotheses"), "Margins of H1 and H2 after each epoch, validation split"
            ),
            html.table(hypothesis_table(judged)),
        ],
    )
    yield (
        "training",
        "Training",
        [
            html.paragraph(prose.TRAINING),
            html.figure(
                pictures.get("loss"), "Loss, its parts, and the learning rate; pale line: logged steps"
            ),
        ],
    )
    yield "space", "Embedding space", _space_parts(space, pictures, judged)
    yield "probe", "Probe", _probe_parts(run, pictures)
    yield "configuration", "Configuration", [html.code(run.config or "not recorded")]
    yield "provenance", "Provenance", _provenance(run)


def _space_parts(
    space: Space | None, pictures: Mapping[str, Path], judged: Mapping[str, object]
) -> list[str]:
    moving = [html.paragraph(prose.SPACE), explorer(space)] if space is not None else []
    return [
        *moving,
        html.figure(pictures.get("pca-2d"), "First two principal components over training"),
        html.figure(pictures.get("pca-3d"), "First three principal components over training"),
        html.figure(pictures.get("distribution"), "How the embeddings are spread, after each epoch"),
        html.table(distribution_table(judged)),
    ]


def _probe_parts(run: RunRecords, pictures: Mapping[str, Path]) -> list[str]:
    table = probe_table({"probe": run.probe})
    if table is None:
        return [html.paragraph("Not measured: align-cache eval --probe NAME trains one.", kind="missing")]
    return [
        html.paragraph(prose.PROBE),
        html.figure(pictures.get("probe"), "Probe accuracy with 95% intervals"),
        html.table(table),
    ]


def _provenance(run: RunRecords) -> list[str]:
    evaluation = run.evaluation
    notes = dict.fromkeys([*(run.record.get("notes") or ()), *(dig(evaluation, "notes") or ())])
    provenance = run.record.get("provenance") or {}
    packages = ", ".join(f"{name} {version}" for name, version in (provenance.get("packages") or {}).items())
    rows = (
        ("run folder", run.folder.name),
        ("started", text(run.record.get("created"))),
        ("evaluated", text(dig(evaluation, "created"))),
        ("device", text(run.record.get("device"))),
        ("machine", f"{text(provenance.get('platform'))}, {text(provenance.get('processors'))} processors"),
        ("versions", f"align-cache {text(provenance.get('align_cache'))}, {packages or NOT_MEASURED}"),
        ("checkpoint", f"{text(dig(evaluation, 'checkpoint'))}, epoch {text(dig(evaluation, 'epoch'))}"),
    )
    command = run.record.get("command")
    return [
        html.table(Table("", ("", ""), rows, label_columns=2)),
        *(html.paragraph(note, kind="note") for note in notes),
        html.code(command) if command else "",
    ]


def _palette() -> str:
    colours = "".join(f"--{name}:{colour};" for name, colour in style.MODALITY_COLOURS.items())
    return f":root{{{colours}}}"


def _asset(name: str) -> str:
    return (resources.files("align_cache.reporting") / "assets" / name).read_text(encoding="utf-8")
