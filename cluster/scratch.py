"""Folders for what Ray and Tune write; nothing in them outlives its process for long."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
    _empty(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        with FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for left in _empty(base):
            shutil.rmtree(left, ignore_errors=True)


def _empty(base: Path) -> list[Path]:
    """Remove what Ray and Tune wrote into folders whose process was killed, and return these folders.

    Their locks stay, by which they are found again: Ray's processes end a while later and may write once more.
    """
    return [lock.parent for lock in base.glob(f"{PREFIX}*/{LOCK}") if _emptied(lock)]


def _emptied(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            for left in lock.parent.iterdir():
                if left != lock:
                    shutil.rmtree(left, ignore_errors=True)
    except (Timeout, OSError):  # alive, or another user's
        return False
    return True
