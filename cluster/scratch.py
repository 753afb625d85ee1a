"""Private temporary folders for the files of Ray and Tune, removed also after a process was killed."""

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
"""Ray's folder inside a scratch folder: Ray makes its own readable by all users, its parent is private."""
MAX_BASE_LENGTH = 26
"""Maximum length of the base folder: Ray creates sockets below it, whose paths are limited to 107 characters."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder with mode 0700, removed after the block; also remove folders of killed processes.

    A file lock shows which processes are alive: process ids do not where containers share a folder.
    """
    base = Path(tempfile.gettempdir() if len(tempfile.gettempdir()) <= MAX_BASE_LENGTH else "/tmp")
    for abandoned in _abandoned_folders(base):
        # Keep the lock, so that the folder is cleaned again later: Ray's processes may still write for a while.
        for subfolder in abandoned.glob("*/"):
            shutil.rmtree(subfolder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        with FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for abandoned in _abandoned_folders(base):
            shutil.rmtree(abandoned, ignore_errors=True)


def _abandoned_folders(base: Path) -> Iterator[Path]:
    """Yield the folders of killed processes, each locked while it is yielded."""
    for lock in base.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(Timeout, OSError):  # its process is alive, or the folder was removed
            if _is_private(lock.parent):
                with FileLock(lock, timeout=0):
                    yield lock.parent


def _is_private(folder: Path) -> bool:
    """Return whether a folder belongs to this user alone: another user's could link to any folder."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
