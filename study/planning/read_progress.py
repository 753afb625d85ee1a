"""Progress of the first reading of a data set, on stderr; later plans only read changed files."""

import math
import sys
import time
from collections.abc import Callable

from datasets.source import ProgressCallback

LINE_SECONDS = 5.0
MIN_ELAPSED_SECONDS = 0.1
"""Reading time after which the remaining time is estimated."""
LONG_SECONDS = 0.5
"""Remaining time from which `meanwhile` is called."""


def progress_line(name: str, meanwhile: Callable[[], None] | None = None) -> ProgressCallback:
    """Return a callback that updates one line on a terminal, and writes a line every few seconds otherwise.

    `meanwhile` is called, possibly often, if reading will take long.
    """
    last_line, start = time.monotonic(), math.nan
    terminal = sys.stderr.isatty()

    def report(done: int, total: int) -> None:
        nonlocal last_line, start
        is_last = done >= total
        start = time.monotonic() if math.isnan(start) else start  # not before: files were listed until now
        elapsed = time.monotonic() - start
        if meanwhile and elapsed > MIN_ELAPSED_SECONDS and elapsed * (total - done) > LONG_SECONDS * done:
            meanwhile()
        if terminal:
            sys.stderr.write(f"\rreading data.{name}: {done:,} of {total:,} files" + ("\n" if is_last else ""))
            sys.stderr.flush()
        elif time.monotonic() - last_line > LINE_SECONDS:
            last_line = time.monotonic()
            sys.stderr.write(f"reading data.{name}: {done:,} of {total:,} files\n")

    return report
