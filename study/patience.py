"""A storage that refuses writes for a while: a full disk, a quota, a file server that is away."""

import errno
import time
from collections.abc import Callable
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
