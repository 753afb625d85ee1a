"""Private folders for what Ray and Tune write; nothing in them outlives its process for long."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "study-"
LOCK = "owner.lock"
SESSIONS = "r"
"""Ray's folder in a scratch folder: Ray opens its own to all users, and the one above keeps them out."""
LONGEST = 26
"""Ray puts sockets into its folder, and the path of a socket may have 107 characters."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder of mode 0700 that is removed with the block, and remove those whose process was killed.

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
        with suppress(Timeout, OSError):  # alive, or removed meanwhile
            if _is_private(lock.parent):
                with FileLock(lock, timeout=0):
                    yield lock.parent


def _is_private(folder: Path) -> bool:
    """Return whether only this user can have made a folder and filled it: another's may be a link to any folder."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
