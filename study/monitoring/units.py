"""How a report writes numbers and times."""

from collections.abc import Sequence

from results.report.page import Entry


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:g}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Return a time as it is read: seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count(value: int) -> Entry:
    """Return a number of things."""
    return Entry(f"{value:,}", float(value))


def spread(values: Sequence[int]) -> Entry:
    """Return the lowest and the highest of some numbers."""
    low, high = min(values), max(values)
    return Entry(f"{low:,}" if low == high else f"{low:,} to {high:,}", float(low))
