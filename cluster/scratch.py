"""Folders for what Ray and Tune write; nothing in them outlives its process for long."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "study-"
LOCK = "owner.lock"
LONGEST = 28
"""Ray puts sockets into its folder, and the path of a socket may have 107 characters."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder that is removed with the block, and remove those whose process was killed.

    A lock tells the living from the dead: process ids would not, where containers share a folder.
    """
    base = Path(tempfile.gettempdir() if len(tempfile.gettempdir()) <= LONGEST else "/tmp")
    for left in _left(base):
        # Its lock stays, by which it is found again: Ray's processes end a while later and may write once more.
        for written in left.glob("*/"):
            shutil.rmtree(written, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        with FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for left in _left(base):
            shutil.rmtree(left, ignore_errors=True)


def _left(base: Path) -> Iterator[Path]:
    """Yield the folders whose process was killed, each locked meanwhile."""
    for lock in base.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):  # alive, or another user's
            yield lock.parent
