"""Tells on stderr how far the first reading of a data set is; later plans read what changed only."""

import math
import sys
import time
from collections.abc import Callable

from datasets.source import Progress

LINE_SECONDS = 5.0
SURE_SECONDS = 0.1
"""Of reading, after which the rest of it is foreseen."""
LONG_SECONDS = 0.5
"""That are left, from which reading takes a while."""


def telling(name: str, meanwhile: Callable[[], None] | None = None) -> Progress:
    """Return a progress that rewrites one line on a terminal, and writes one every few seconds elsewhere.

    `meanwhile` is called where reading will take a while, maybe often.
    """
    told, begun = time.monotonic(), math.nan
    terminal = sys.stderr.isatty()

    def tell(done: int, total: int) -> None:
        nonlocal told, begun
        last = done >= total
        begun = time.monotonic() if math.isnan(begun) else begun  # not before: files were listed until now
        passed = time.monotonic() - begun
        if meanwhile and passed > SURE_SECONDS and passed * (total - done) > LONG_SECONDS * done:
            meanwhile()
        if terminal:
            sys.stderr.write(f"\rreading data.{name}: {done:,} of {total:,} files" + ("\n" if last else ""))
            sys.stderr.flush()
        elif time.monotonic() - told > LINE_SECONDS:
            told = time.monotonic()
            sys.stderr.write(f"reading data.{name}: {done:,} of {total:,} files\n")

    return tell
