"""From a run folder to its figures and its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from align_cache.files import publish_text
from align_cache.run_records import RunRecords, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from align_cache.reporting.space import Space

OnProgress: TypeAlias = Callable[[int, int], None]
"""Told how many figures are done and how many there are."""


def report(
    run_folder: Path, *, perplexities: Sequence[int] | None = None, on_progress: OnProgress | None = None
) -> Path:
    """Draw every figure of a run and publish its page.

    Parameters
    ----------
    run_folder : Path
        A run of ``align-cache fit``, finished or not, evaluated or not; what is missing is named on the page.
    perplexities : sequence of int, optional
        One t-SNE for each; None: one at 30 where the snapshots hold points enough.
    on_progress : callable (done, total), optional
        Called after each figure.

    Returns
    -------
    Path of ``report.html``, one file that needs nothing beside it: figures embedded, no network.

    Raises
    ------
    RunError
        If ``run_folder`` is no run folder or holds a damaged file.
    UsageError
        For a perplexity that the snapshots are too small for, before anything is drawn.
    """
    from align_cache.reporting.page import render
    from align_cache.reporting.space import project

    run = read_run(run_folder)
    space = project(run)
    figures = _draw(run, space, perplexities, on_progress)
    path = run_folder / "report.html"
    publish_text(path, render(run, space, figures))
    return path


def draw_figures(
    run_folder: Path, *, perplexities: Sequence[int] | None = (), on_progress: OnProgress | None = None
) -> list[Path]:
    """Draw a run's figures into ``figures/`` and return their paths; see :func:`report`.

    Unlike there, no t-SNE is drawn unasked: it takes longer than all the others together.
    """
    from align_cache.reporting.space import project

    run = read_run(run_folder)
    return _draw(run, project(run), perplexities, on_progress)


def _draw(
    run: RunRecords, space: Space | None, perplexities: Sequence[int] | None, on_progress: OnProgress | None
) -> list[Path]:
    from align_cache.reporting import style, tsne_snapshots

    chosen = tsne_snapshots.chosen_perplexities(run, space, perplexities)
    plans = [*_plans(run, space), *_tsne_plans(run, chosen)]
    paths = []
    for done, (name, draw) in enumerate(plans, start=1):
        figure = draw()
        if figure is not None:
            paths.append(style.save(figure, run.folder / "figures" / f"{name}.png"))
        if on_progress is not None:
            on_progress(done, len(plans))
    return paths


def _plans(run: RunRecords, space: Space | None) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    """Yield each figure's name and the call that draws it, or gives None where there is nothing to draw."""
    from align_cache.reporting import clouds, curves, heatmap, margins, probes, stress_figure

    yield "loss", lambda: curves.loss_curves(run)
    if curves.weighs_directions(run):
        yield "weights", lambda: curves.weight_curves(run)
    yield "retrieval", lambda: curves.retrieval_curves(run)
    yield "alignment", lambda: curves.alignment_curves(run)
    yield "alignment-heatmap", lambda: heatmap.alignment_heatmap(run)
    yield "hypotheses", lambda: margins.margin_curves(run)
    yield "hypotheses-final", lambda: margins.margin_intervals(run)
    yield "distribution", lambda: curves.distribution_curves(run)
    yield "probe", lambda: probes.probe_bars(run)
    if run.stress is not None:
        yield "stress", partial(stress_figure.stress_figure, run.stress)
    if space is None:
        return
    yield "pca-2d", lambda: clouds.pca_2d(space)
    yield "pca-3d", lambda: clouds.pca_3d(space)
    for epoch in space.points:
        yield f"pca/epoch-{epoch:04d}", partial(clouds.epoch_figure, space, epoch)


def _tsne_plans(run: RunRecords, perplexities: Sequence[int]) -> Iterator[tuple[str, Callable[[], Figure]]]:
    from align_cache.reporting import tsne_snapshots

    for perplexity in perplexities:
        draw = partial(tsne_snapshots.first_and_last_figure, run, perplexity)
        yield f"{tsne_snapshots.TSNE_FILE_HEAD}{perplexity}", draw
