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
    base = tempfile.gettempdir() if len(tempfile.gettempdir()) <= LONGEST else "/tmp"
    for left in Path(base).glob(f"{PREFIX}*/{LOCK}"):
        _remove_unless_held(left)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        with FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unless_held(lock: Path) -> None:
    try:
        with FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)
    except (Timeout, OSError):  # alive, or another user's
        return
