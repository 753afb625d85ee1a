"""Claims: who works on a stage now. They keep two drivers from training one stage twice."""

import os
import shutil
import socket
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from filelock import FileLock

from study.files import read_json, write_json

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
CLOCK_SECONDS = 2.0
"""By how much a process's time of birth may seem to move when the clock is set."""


class Claim:
    """Held while a stage is worked on; a thread keeps it fresh. Entering raises `Claimed` where another holds it.

    A block that ends well has published its stage: its work folder is removed with the claim.
    """

    def __init__(self, work: Path) -> None:
        self._file = work / "claim.json"
        # Beside the work folders, not inside one: a lock that is removed while another waits for it locks nothing.
        self._lock = work.parent / ".lock"
        process = psutil.Process()
        token = uuid.uuid4().hex
        self._mine = {"host": socket.gethostname(), "pid": process.pid, "born": process.create_time(), "token": token}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)

    def __enter__(self) -> Self:
        """Take the claim."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):
            if is_claimed(self._file.parent):
                raise Claimed(str(self._file))
            write_json(self._file, self._mine)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the claim up."""
        self._stop.set()
        self._thread.join()
        with FileLock(self._lock):
            if read_json(self._file) != self._mine:
                return  # this process was taken for dead, and another holds the claim now
            if error is None:
                shutil.rmtree(self._file.parent, ignore_errors=True)
            else:
                self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                os.utime(self._file)
            except FileNotFoundError:  # taken for dead, and the stage finished by another
                return


class Claimed(RuntimeError):  # noqa: N818 - an expected state
    """Another process works on the stage."""


def is_claimed(work: Path) -> bool:
    """Return whether a live process holds the claim: one of this host that runs, or a fresh beat from another."""
    claim = read_json(work / "claim.json")
    if not isinstance(claim, dict):
        return False
    if claim["host"] == socket.gethostname():
        return _runs(claim["pid"], claim["born"])
    try:
        probe = work / ".now"
        probe.touch()  # the file system's own clock, which wrote the beat too
        return probe.stat().st_mtime - (work / "claim.json").stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _runs(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - born) < CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
