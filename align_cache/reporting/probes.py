"""Probe accuracies as bars with their intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from align_cache.reporting import style
from align_cache.reporting.tables import Record, probe_title
from align_cache.run_records import RunRecords, dig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_A_ROW = 2


def probe_bars(run: RunRecords) -> Figure | None:
    """Draw one panel per probe head, one bar per row of the table, with 95% intervals."""
    rows = dig(run.probe, "rows") or {}
    heads = list(dict.fromkeys(head for results in rows.values() for head in results))
    if not heads:
        return None
    columns = min(len(heads), _PANELS_A_ROW)
    lines = math.ceil(len(heads) / columns)
    figure = style.new_figure(5.25 * columns, (1.25 + 0.42 * len(rows)) * lines)
    panels = style.panels(figure, lines, columns)
    for axis, head in zip(panels, heads, strict=False):
        results = {name: results.get(head) for name, results in rows.items()}
        _draw_head(axis, results)
        measured = next((result for result in results.values() if result), None)
        style.title(axis, probe_title(head, measured), _subtitle(run.probe or {}, results))
    for unused in panels[len(heads) :]:
        unused.set_axis_off()
    return figure


def _draw_head(axes: Axes, results: dict[str, Record | None]) -> None:
    names = list(reversed(results))
    for height, name in enumerate(names):
        _draw_bar(axes, height, name, results[name])
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(xlim=(0, 1.12), ylim=(-0.6, len(names) - 0.4))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=style.RULE)


def _draw_bar(axes: Axes, height: int, name: str, result: Record | None) -> None:
    accuracy = dig(result, "accuracy")
    if accuracy is None:
        axes.text(0.01, height, "not measured", va="center", fontsize=8.5, color=style.FAINT)
        return
    colours = style.PALE_COLOURS if name.endswith("features") else style.MODALITY_COLOURS
    colour = colours.get(name.split("_")[0], style.FAINT)
    axes.barh(height, accuracy, height=0.62, color=colour, zorder=2)
    right = accuracy
    if dig(result, "interval") is not None:
        low, right = dig(result, "interval")
        axes.plot(
            (low, right), (height, height), color=style.INK, linewidth=1.4, solid_capstyle="butt", zorder=3
        )
    axes.annotate(
        f"{accuracy:.1%}", (right, height), xytext=(5, 0), textcoords="offset points",
        va="center", fontsize=9, color=style.INK,
    )  # fmt: skip


def _subtitle(probe: Record, results: dict[str, Record | None]) -> str:
    sizes = next((result for result in results.values() if result), {})
    train, test = sizes.get("n_train") or 0, sizes.get("n_test") or 0
    name = probe.get("name") or probe.get("probe")
    return f"{name}, accuracy on {test:,} images after {train:,}, 95% intervals"
