"""The page: one HTML file with everything in it, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from align_cache.reporting import html, prose
from align_cache.reporting.document import Section, document
from align_cache.reporting.evaluation_tables import calibrated_table, hypothesis_table, null_tables
from align_cache.reporting.explorer import explorer
from align_cache.reporting.gallery import gallery
from align_cache.reporting.headline import story, tiles, warnings
from align_cache.reporting.run_table import run_table
from align_cache.reporting.space import Space
from align_cache.reporting.stress_tables import stress_tables
from align_cache.reporting.tables import (
    Table,
    alignment_table,
    distribution_table,
    probe_table,
    retrieval_table,
)
from align_cache.reporting.training_table import training_table
from align_cache.reporting.tsne_snapshots import TSNE_FILE_HEAD
from align_cache.reporting.wording import NOT_MEASURED, text
from align_cache.reporting.zero_shot import zero_shot_tables
from align_cache.run_records import RunRecords, dig

_OPEN_ROWS = 8
"""The margins of two metrics; more of them, which the figure shows already, stand behind a line."""


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
    return document(
        text(run.record.get("id")),
        _header(run),
        list(_sections(run, space, pictures)),
        f"Made by align-cache report from {run.folder.name}. The pictures also lie in figures/.",
        script="explorer.js" if space is not None else "",
    )


def _header(run: RunRecords) -> str:
    record = run.record
    where = f"{text(record.get('project'))} · {text(record.get('dataset'))} · {text(record.get('created'))}"
    found = "".join(html.paragraph(line, kind="warning") for line in warnings(run))
    numbers = "".join(html.tile(tile) for tile in tiles(run))
    judged = (
        f"Headline numbers: {text(run.judged.get('split'))} split, epoch {text(run.judged.get('epoch'))};"
        f" one run, seed {text(record.get('seed'))}: its intervals are over items, not over seeds."
    )
    return (
        f"{html.paragraph(where, kind='where')}{html.heading(text(record.get('id')))}{found}"
        f'{html.paragraph(story(run), kind="lead")}<div class="tiles">{numbers}</div>'
        f"{html.paragraph(judged, kind='note')}"
    )


def _sections(run: RunRecords, space: Space | None, pictures: Mapping[str, Path]) -> Iterator[Section]:
    """Yield the sections in reading order."""
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
    yield "gallery", "What is found", gallery(run)
    yield "alignment", "Alignment", _alignment_parts(judged, pictures)
    yield "hypotheses", "Hypotheses", _hypothesis_parts(judged, pictures)
    yield "training", "Training", _training_parts(run, pictures)
    yield "space", "Embedding space", _space_parts(space, pictures, judged)
    yield "probe", "Probe", _probe_parts(run, pictures)
    yield "zero-shot", "Zero-shot", _zero_shot_parts(judged)
    yield "stress", "Under noise", _stress_parts(run, pictures)
    yield "configuration", "Configuration", [html.code(run.config or "not recorded")]
    yield "provenance", "Provenance", _provenance(run)


def _training_parts(run: RunRecords, pictures: Mapping[str, Path]) -> list[str]:
    weights = pictures.get("weights")  # drawn where a schedule weighs the directions
    return [
        html.paragraph(prose.TRAINING),
        html.table(training_table(run)),
        html.figure(pictures.get("loss"), "Loss, its parts, and the learning rate; pale line: logged steps"),
        html.figure(weights, "Weights of the two directions; pale lines: logged steps") if weights else "",
    ]


def _alignment_parts(judged: Mapping[str, Any], pictures: Mapping[str, Path]) -> list[str]:
    calibrated, null = calibrated_table(judged), [html.table(table) for table in null_tables(judged)]
    return [
        html.paragraph(prose.ALIGNMENT),
        html.figure(pictures.get("alignment"), "Kernel alignment of the four pairs after each epoch"),
        html.figure(pictures.get("alignment-heatmap"), "Alignment of each pair, now and on the way"),
        html.table(alignment_table(judged)),
        html.table(calibrated) if calibrated else "",
        html.folded("the permutation null in full", *null) if null else "",
    ]


def _hypothesis_parts(judged: Mapping[str, Any], pictures: Mapping[str, Path]) -> list[str]:
    table = hypothesis_table(judged)
    shown = html.table(table)
    return [
        html.paragraph(prose.HYPOTHESES),
        html.figure(pictures.get("hypotheses-final"), "Margins of H1 and H2 with 95% intervals"),
        html.figure(pictures.get("hypotheses"), "Margins of H1 and H2 after each epoch, validation split"),
        shown if len(table.rows) <= _OPEN_ROWS else html.folded("the margins as a table, with p", shown),
    ]


def _space_parts(
    space: Space | None, pictures: Mapping[str, Path], judged: Mapping[str, object]
) -> list[str]:
    moving = [html.paragraph(prose.SPACE), explorer(space)] if space is not None else []
    return [
        *moving,
        html.figure(pictures.get("pca-2d"), "First two principal components over training"),
        html.figure(pictures.get("pca-3d"), "First three principal components over training"),
        *_tsne_parts(pictures),
        html.figure(pictures.get("distribution"), "How the embeddings are spread, after each epoch"),
        html.table(distribution_table(judged)),
    ]


def _tsne_parts(pictures: Mapping[str, Path]) -> Iterator[str]:
    """Yield the t-SNEs that were drawn this time, in the order asked for."""
    for name, path in pictures.items():
        if name.startswith(TSNE_FILE_HEAD):
            perplexity = name.removeprefix(TSNE_FILE_HEAD)
            yield html.figure(path, f"t-SNE of images and captions, perplexity {perplexity}")


def _probe_parts(run: RunRecords, pictures: Mapping[str, Path]) -> list[str]:
    table = probe_table({"probe": run.probe})
    if table is None:
        return [html.paragraph("Not measured: align-cache eval --probe NAME trains one.", kind="missing")]
    return [
        html.paragraph(prose.PROBE),
        html.figure(pictures.get("probe"), "Probe accuracy with 95% intervals"),
        html.table(table),
    ]


def _zero_shot_parts(judged: Mapping[str, object]) -> list[str]:
    tables = zero_shot_tables(judged)
    if not tables:
        return [html.paragraph("Not measured: align-cache eval --zero-shot NAME classifies.", kind="missing")]
    return [html.paragraph(prose.ZERO_SHOT), *map(html.table, tables)]


def _stress_parts(run: RunRecords, pictures: Mapping[str, Path]) -> list[str]:
    if run.stress is None:
        return [html.paragraph("Not measured: align-cache stress RUN measures it.", kind="missing")]
    notes = (html.paragraph(note, kind="note") for note in run.stress["notes"])
    return [
        html.paragraph(prose.STRESS),
        html.figure(pictures.get("stress"), "Recall at 1 and at 10 under noise, with 95% intervals"),
        *map(html.table, stress_tables(run.stress)),
        *notes,
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
