"""How every figure looks: one palette, one frame, one way to save.

Colours are those of Okabe and Ito's set, told apart by colour-blind readers, and mean the same thing in
every figure. Figures are drawn through the object interface on an Agg canvas: no global state is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from align_cache.files import publish_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODALITY_COLOURS = {"image": "#d55e00", "text": "#0072b2", "aligned": "#009e73", "reference": "#6b6f76"}
PALE_COLOURS = {"image": "#f0b993", "text": "#8fc0de", "aligned": "#8ad1bb", "reference": "#c3c6ca"}
PAIR_COLOURS = {
    "image_text": "#b2568f",
    "image_reference": MODALITY_COLOURS["image"],
    "text_reference": MODALITY_COLOURS["text"],
    "aligned_reference": MODALITY_COLOURS["aligned"],
}
DIRECTION_COLOURS = {"image_to_text": MODALITY_COLOURS["image"], "text_to_image": MODALITY_COLOURS["text"]}
HYPOTHESIS_COLOURS = {"h1": "#56a3c9", "h2": "#b07c00"}
INK, MUTED, FAINT, RULE = "#22262b", "#6b6f76", "#a9adb3", "#e4e6e9"
DPI = 160
LINE = 1.8


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, sizes in inches, laid out so that nothing is cut off."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def keyed_figure(width: float, height: float, key: Sequence[str]) -> Figure:
    """Make an empty figure of ``height`` inches below the lines of a key, which says what is drawn."""
    figure = new_figure(width, height + 0.17 * len(key) + 0.2)
    figure.suptitle(
        "\n".join(key), x=0.01, ha="left", fontsize=9, color=INK, linespacing=1.5, parse_math=False
    )
    return figure


def panels(figure: Figure, rows: int, columns: int) -> list[Axes]:
    """Return ``rows`` x ``columns`` styled axes, row by row."""
    grid = figure.subplots(rows, columns, squeeze=False)
    axes: list[Axes] = [axis for row in grid for axis in row]
    for axis in axes:
        calm(axis)
    return axes


def calm(axes: Axes) -> None:
    """Take away what carries no data: frame, tick marks, strong grid lines."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=MUTED)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def title(axes: Axes, heading: str, subtitle: str = "") -> None:
    """Write a left-aligned title, and under it in grey what is measured; a ``$`` in a name is a ``$``."""
    pad = 8 + 12 * len(subtitle.splitlines())
    axes.set_title(
        heading, loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=pad, parse_math=False
    )
    if subtitle:
        axes.annotate(
            subtitle, (0, 1), xycoords="axes fraction", xytext=(0, 7), textcoords="offset points",
            fontsize=8.5, color=MUTED, linespacing=1.25, parse_math=False,
        )  # fmt: skip


def epoch_axis(axes: Axes, epochs: Sequence[int], *, room: float = 0.0) -> None:
    """Label the x axis with whole epochs; leave ``room``, a share of its length, for labels on the right."""
    from matplotlib.ticker import MaxNLocator

    low, high = (min(epochs), max(epochs)) if epochs else (0, 1)
    span = max(high - low, 1)
    axes.set_xlim(low - 0.02 * span, high + (0.02 + room) * span)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= high])
    axes.set_xlabel("epoch", fontsize=8.5, color=MUTED)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, gap: float = 0.075) -> None:
    """Write each line's name beside its last point, pushed apart where they would overlap.

    Parameters
    ----------
    ends : sequence of (x, y, label, colour)
        Last points in data coordinates.
    gap : float
        Least distance of two labels, as a share of the height of the axes.
    """
    bottom, top = axes.get_ylim()
    distance = gap * (top - bottom)
    ordered = sorted(ends, key=lambda end: end[1])
    heights = [max(y, bottom + distance / 2) for _, y, _, _ in ordered]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + distance)
    ceiling = top
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - distance
    for (x, _, label, colour), height in zip(ordered, heights, strict=True):
        axes.annotate(
            label, (x, height), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=colour, annotation_clip=False,
        )  # fmt: skip


def modality_legend(figure: Figure, present: Iterable[str]) -> None:
    """Name the colours of the modalities once, above all panels."""
    from matplotlib.lines import Line2D

    wanted = set(present)
    names = [name for name in MODALITY_COLOURS if name in wanted]
    marks = [Line2D([], [], marker="o", linestyle="", color=MODALITY_COLOURS[name]) for name in names]
    figure.legend(
        marks, names, loc="outside upper left", ncols=len(names), frameon=False, fontsize=10,
        labelcolor=[MODALITY_COLOURS[name] for name in names], handletextpad=0.1, columnspacing=1.4,
    )  # fmt: skip


def say_missing(axes: Axes, what: str) -> None:
    """Write in an empty panel that its quantity was not measured."""
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        f"{what}\nnot measured",
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=FAINT,
        fontsize=9,
    )


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, without the metadata that would make equal pictures differ."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Publish a figure as PNG and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_bytes(path, png(figure))
    return path
