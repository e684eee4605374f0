"""A run folder as figures and one self-contained page. Reads records; never imports torch."""

from align_cache.reporting.build import draw_figures, report

__all__ = ["draw_figures", "report"]
