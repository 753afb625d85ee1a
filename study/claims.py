"""Claims: who works on a stage now. They keep two drivers from training one stage twice."""

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
from filelock import FileLock

from study.beat import beating
from study.files import read_json, write_json

STALE_SECONDS = 60.0
CLOCK_SECONDS = 2.0
"""By how much a process's time of birth may seem to move when the clock is set."""


@contextmanager
def claim(work: Path) -> Iterator[None]:
    """Hold a stage while it is worked on; a thread keeps the claim fresh. Raises `Claimed` where another holds it.

    A block that ends well has published its stage: its work folder is removed with the claim.
    """
    file = work / "claim.json"
    # Beside the work folders, not inside one: a lock that is removed while another waits for it locks nothing.
    lock = FileLock(work.parent / ".lock")
    process = psutil.Process()
    token = uuid.uuid4().hex
    mine = {"host": socket.gethostname(), "pid": process.pid, "born": process.create_time(), "token": token}
    work.mkdir(parents=True, exist_ok=True)
    with lock:
        if is_claimed(work):
            raise Claimed(str(file))
        write_json(file, mine)
    finished = False
    try:
        with beating(partial(_touch, file), "claim"):
            yield
        finished = True
    finally:
        with lock:
            if read_json(file) == mine:  # else this process was taken for dead, and another holds the claim now
                shutil.rmtree(work, ignore_errors=True) if finished else file.unlink(missing_ok=True)


def _touch(file: Path) -> None:
    with suppress(FileNotFoundError):  # taken for dead, and the stage finished by another
        os.utime(file)


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
