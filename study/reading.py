"""Tells on stderr how far the first reading of a data set is; later plans read what changed only."""

import sys
import time

from datasets.sample import Progress

LINE_SECONDS = 5.0


def telling(name: str) -> Progress:
    """Return a progress that rewrites one line on a terminal, and writes one every few seconds elsewhere."""
    told = time.monotonic()
    terminal = sys.stderr.isatty()

    def tell(done: int, total: int) -> None:
        nonlocal told
        last = done >= total
        if terminal:
            sys.stderr.write(f"\rreading data.{name}: {done:,} of {total:,} files" + ("\n" if last else ""))
            sys.stderr.flush()
        elif time.monotonic() - told > LINE_SECONDS:
            told = time.monotonic()
            sys.stderr.write(f"reading data.{name}: {done:,} of {total:,} files\n")

    return tell
