"""Values as words: one place that decides how a number, a share, a size or an absence is written."""

from __future__ import annotations

from collections.abc import Sequence

NOT_MEASURED = "not measured"


def text(value: object) -> str:
    """Return a value as a word, ``not measured`` for None."""
    return NOT_MEASURED if value is None else str(value)


def number(value: float | None, digits: int = 4, *, signed: bool = False) -> str:
    """Return a number with ``digits`` decimals, two or three fewer from 10 and from 100 on."""
    if value is None:
        return NOT_MEASURED
    digits = max(0, digits - (abs(value) >= 10) * 2 - (abs(value) >= 100))
    shown = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    return shown.replace("-", "−")


def percent(share: float | None) -> str:
    """Return a share in 0..1 as a percentage with one decimal."""
    return NOT_MEASURED if share is None else f"{share:.1%}"


def count(value: int | None) -> str:
    """Return an integer with thousands separated."""
    return NOT_MEASURED if value is None else f"{value:,}"


def interval(bounds: Sequence[float] | None, *, signed: bool = False) -> str:
    """Return an interval as ``low … high``."""
    if bounds is None:
        return NOT_MEASURED
    return f"{number(bounds[0], signed=signed)} … {number(bounds[1], signed=signed)}"


def plus_minus(value: float | None, bounds: Sequence[float] | None) -> str:
    """Return a value with half the width of its symmetric interval, the value alone where it has none."""
    if value is None or bounds is None:
        return number(value)
    return f"{number(value)} ± {number((bounds[1] - bounds[0]) / 2)}"


def percents(bounds: Sequence[float] | None) -> str:
    """Return an interval of a share in percent without the sign: ``6.5–9.8``, where room is scarce."""
    return NOT_MEASURED if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"


def duration(seconds: float) -> str:
    """Return a time span in the two units that matter."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def byte_size(value: int | None) -> str:
    """Return a number of bytes in MB or GB (powers of ten)."""
    if value is None:
        return NOT_MEASURED
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def p_value(value: float) -> str:
    """Return a p-value with three decimals; what rounds to zero is written as a bound."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
