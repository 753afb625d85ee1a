"""Formatting of numbers and durations in reports."""

from collections.abc import Sequence

from results.report.page import GridCell


def percent(fraction: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * fraction:g}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours, whichever is readable."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count(value: int) -> GridCell:
    """Return a count."""
    return GridCell(f"{value:,}", float(value))


def spread(values: Sequence[int]) -> GridCell:
    """Return the range of the values."""
    low, high = min(values), max(values)
    return GridCell(f"{low:,}" if low == high else f"{low:,} to {high:,}", float(low))
