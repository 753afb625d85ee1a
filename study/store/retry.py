"""A storage that refuses writes for a while: a full disk, a quota, a file server that is away."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
"""What comes of the place that is written to, and may pass."""
PATIENCE_SECONDS = 300.0
PAUSES = 1.0, 15.0
"""Seconds before the second attempt, and at most between later ones; each pause is twice the one before."""

T = TypeVar("T")


def refuses(error: OSError) -> bool:
    """Return whether an error is a refusal of the storage that may pass."""
    return error.errno in REFUSALS


def append_patiently(file: Path, append: Callable[[], object]) -> None:
    """Append to a file that nobody else appends to now; what a refused attempt left half is cut off."""
    size = file.stat().st_size if file.exists() else 0

    def whole() -> None:
        if file.exists() and file.stat().st_size > size:
            os.truncate(file, size)
        append()

    patiently(whole)


def patiently(work: Callable[[], T]) -> T:
    """Do again, while there is patience, what a storage refused; the work knows where it goes on from."""
    pause, most = PAUSES
    waited = 0.0
    while True:
        try:
            return work()
        except OSError as error:
            if not refuses(error) or waited >= PATIENCE_SECONDS:
                raise
        time.sleep(pause)
        waited, pause = waited + pause, min(2 * pause, most)
