"""Retry writes that fail temporarily: full disk, quota, unavailable file server."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

TRANSIENT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
"""Errors of the storage that may be temporary."""
PATIENCE_SECONDS = 300.0
"""Duration of retries."""
PAUSES = 1.0, 15.0
"""Initial and maximum pause between retries in seconds; pauses double."""

T = TypeVar("T")


def is_transient(error: OSError) -> bool:
    """Return whether an error of the storage may be temporary."""
    return error.errno in TRANSIENT_ERRORS


def append_with_retries(file: Path, append: Callable[[], object]) -> None:
    """Append to a file without other writers; a partial write of a failed attempt is truncated."""
    size = file.stat().st_size if file.exists() else 0

    def append_at_end() -> None:
        if file.exists() and file.stat().st_size > size:
            os.truncate(file, size)
        append()

    retry_io(append_at_end)


def retry_io(call: Callable[[], T]) -> T:
    """Call a function, and retry transient errors until `PATIENCE_SECONDS`. The function must be repeatable."""
    pause, max_pause = PAUSES
    waited = 0.0
    while True:
        try:
            return call()
        except OSError as error:
            if not is_transient(error) or waited >= PATIENCE_SECONDS:
                raise
        time.sleep(pause)
        waited, pause = waited + pause, min(2 * pause, max_pause)
