"""Claims: who works on a stage now. They keep two drivers from training one stage twice."""

import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from study.store.atomic import Form, write_json
from study.store.bucket_store import Mirror
from study.store.documents import verified_line
from study.store.object_store import Remote
from study.store.repeating import beating
from study.store.retry import patiently, refuses

FILE = "claim.json"
STALE_SECONDS = 60.0
LARGEST_PID = 2**31
CLOCK_SECONDS = 2.0
"""By how much a process's time of birth may seem to move when the clock is set."""


@contextmanager
def lease(work: Path, mirror: Mirror | None = None) -> Iterator[None]:
    """Hold a stage while it is worked on; a thread keeps the claim fresh. Raises `LeaseHeld` where another holds it.

    A block that ends well has published its stage: its work folder is removed with the claim. In a mirror other
    machines are asked too, as well as an object store can tell: two that claim in one instant may both hold it.
    """
    with _claimed_here(work), nullcontext() if mirror is None else _claimed_everywhere(work.name, mirror):
        yield


@contextmanager
def _claimed_everywhere(digest: str, mirror: Mirror) -> Iterator[None]:
    """Hold a claim in the storage. What waits to be stored since an earlier attempt goes there first."""
    remote, folder = mirror.remote, f"work/{digest}"
    key = f"{folder}/{FILE}"
    mine = json.dumps(_me()).encode()
    if _is_held(remote, key):
        raise LeaseHeld(key)
    remote.write(key, mine)
    finished = False

    try:
        if remote.read(key) != mine:
            raise LeaseHeld(key)
        with beating(partial(_beat, remote, key, mine), "claim in the storage"):
            mirror.send_waiting()
            mirror.refresh(digest)
            yield
        finished = True
    finally:
        with suppress(OSError):  # a claim that stays grows stale
            if remote.hasty().read(key) == mine:
                if finished:
                    remote.hasty().delete_folder(folder)
                else:
                    remote.hasty().delete(key)


def _beat(remote: Remote, key: str, mine: bytes) -> None:
    if remote.hasty().read(key) == mine:  # else this process was taken for dead
        remote.hasty().write(key, mine)


def _is_held(remote: Remote, key: str) -> bool:
    """Return whether a claim was beaten of late, by the storage's own clock, and its process may live."""
    content = remote.read(key)
    if content is None:
        return False
    lease = verified_line(content, _FORM)
    if lease is not None and lease["host"] == socket.gethostname() and not _runs(lease["pid"], lease["born"]):
        return False
    folder = key.rpartition("/")[0]
    probe = f"{folder}/now-{uuid.uuid4().hex}"
    now = remote.write(probe, b"").mtime_ns
    remote.delete(probe)
    beaten = remote.entries(folder).get(key)
    return beaten is not None and now - beaten.mtime_ns < STALE_SECONDS * 1e9


def _me() -> dict[str, Any]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "born": process.create_time(), "token": uuid.uuid4().hex}


@contextmanager
def _claimed_here(work: Path) -> Iterator[None]:
    file = work / FILE
    # Beside the work folders, not inside one: a lock that is removed while another waits for it locks nothing.
    lock = FileLock(work.parent / ".lock")
    mine = _me()
    work.mkdir(parents=True, exist_ok=True)
    with lock:
        if is_leased(work):
            raise LeaseHeld(str(file))
        write_json(file, mine)
    finished = False

    def release() -> None:
        with lock, suppress(FileNotFoundError):
            if _read(file) == mine:  # else this process was taken for dead, and another holds the claim now
                shutil.rmtree(work, ignore_errors=True) if finished else file.unlink(missing_ok=True)

    try:
        with beating(partial(os.utime, file), "claim"):
            yield
        finished = True
    finally:
        # A claim that stays while its process lives would keep everybody from the stage.
        patiently(release)


class LeaseHeld(RuntimeError):  # noqa: N818 - an expected state
    """Another process works on the stage."""


def is_leased(work: Path, mirror: Mirror | None = None) -> bool:
    """Return whether a live process holds the claim: one of this host that runs, or a fresh beat from another."""
    if mirror is not None and _is_held(mirror.remote, f"work/{work.name}/{FILE}"):
        return True
    try:
        lease = _read(work / FILE)
    except FileNotFoundError:
        return False
    except OSError as error:
        if not refuses(error):
            raise
        return True  # ask again later
    if lease is not None and lease["host"] == socket.gethostname():
        return _runs(lease["pid"], lease["born"])
    return _is_beaten(work)  # also where the claim is damaged: it is held as long as it is kept fresh


def _read(file: Path) -> dict[str, Any] | None:
    """Return a claim, None where it is damaged. Raises `FileNotFoundError`."""
    return verified_line(file.read_bytes(), _FORM)


def _is_claim(value: dict[str, Any]) -> bool:
    pid = value.get("pid")
    return isinstance(pid, int) and 0 < pid < LARGEST_PID and isinstance(value.get("born"), float) and "host" in value


_FORM = Form(frozenset({"host", "pid", "born", "token"}), _is_claim)


def _is_beaten(work: Path) -> bool:
    try:
        probe = work / ".now"
        probe.touch()  # the file system's own clock, which wrote the beat too
        return probe.stat().st_mtime - (work / FILE).stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False
    except OSError:  # the storage refuses to tell: ask again later
        return True


def _runs(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - born) < CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
