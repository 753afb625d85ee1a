"""Leases of stages: they prevent two drivers from training the same stage."""

import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from study.store.atomic import Form, write_json
from study.store.documents import verified_line
from study.store.object_store import Remote
from study.store.repeating import call_periodically
from study.store.retry import is_transient, retry_io

FILE = "claim.json"
STALE_SECONDS = 60.0
LARGEST_PID = 2**31
CLOCK_SECONDS = 2.0
"""Tolerance of the start time of a process, which may shift when the clock is set."""


@contextmanager
def remote_lease(remote: Remote, digest: str) -> Iterator[None]:
    """Lease a stage in a bucket; as `lease`, which other processes of this machine take."""
    folder, key = f"work/{digest}", _key(digest)
    content = json.dumps(_this_process()).encode()
    if is_leased_remotely(remote, digest):
        raise LeaseHeld(key)
    remote.write(key, content)
    finished = False

    try:
        if remote.read(key) != content:
            raise LeaseHeld(key)
        with call_periodically(partial(_renew, remote, key, content), "claim in the storage"):
            yield
        finished = True
    finally:
        with suppress(OSError):  # a lease that remains becomes stale
            if remote.without_retries().read(key) == content:
                if finished:
                    remote.without_retries().delete_folder(folder)
                else:
                    remote.without_retries().delete(key)


def _key(digest: str) -> str:
    return f"work/{digest}/{FILE}"


def _renew(remote: Remote, key: str, content: bytes) -> None:
    if remote.without_retries().read(key) == content:  # otherwise the lease was taken over
        remote.without_retries().write(key, content)


def is_leased_remotely(remote: Remote, digest: str) -> bool:
    """Return whether a lease has a recent heartbeat, by the clock of the bucket, and its process may be alive."""
    key = _key(digest)
    content = remote.read(key)
    if content is None:
        return False
    lease = verified_line(content, _FORM)
    if lease is not None and lease["host"] == socket.gethostname() and not _is_running(lease["pid"], lease["born"]):
        return False
    folder = key.rpartition("/")[0]
    probe = f"{folder}/now-{uuid.uuid4().hex}"
    now = remote.write(probe, b"").mtime_ns
    remote.delete(probe)
    entry = remote.entries(folder).get(key)
    return entry is not None and now - entry.mtime_ns < STALE_SECONDS * 1e9


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "born": process.create_time(), "token": uuid.uuid4().hex}


@contextmanager
def lease(work: Path) -> Iterator[None]:
    """Lease a stage during the block; a thread sends heartbeats. Raises `LeaseHeld` if another process has leased it.

    If the block succeeds, the stage is published, and its work folder is removed with the lease.
    """
    file = work / FILE
    # Next to the work folders, not inside one: a lock file that is removed while others wait has no effect.
    lock = FileLock(work.parent / ".lock")
    owner = _this_process()
    work.mkdir(parents=True, exist_ok=True)
    with lock:
        if is_leased(work):
            raise LeaseHeld(str(file))
        write_json(file, owner)
    finished = False

    def release() -> None:
        with lock, suppress(FileNotFoundError):
            if _read(file) == owner:  # otherwise the lease was taken over by another process
                shutil.rmtree(work, ignore_errors=True) if finished else file.unlink(missing_ok=True)

    try:
        with call_periodically(partial(os.utime, file), "claim"):
            yield
        finished = True
    finally:
        # A lease that remains while its process is alive would block the stage for everyone.
        retry_io(release)


class LeaseHeld(RuntimeError):  # noqa: N818 - an expected state
    """Another process has leased the stage."""


def is_leased(work: Path) -> bool:
    """Return whether the lease belongs to a running process of this host, or has a recent heartbeat from another."""
    try:
        lease = _read(work / FILE)
    except FileNotFoundError:
        return False
    except OSError as error:
        if not is_transient(error):
            raise
        return True  # unknown: check again later
    if lease is not None and lease["host"] == socket.gethostname():
        return _is_running(lease["pid"], lease["born"])
    return _has_heartbeat(work)  # also if the lease file is damaged: a recent heartbeat counts


def _read(file: Path) -> dict[str, Any] | None:
    """Return the content of a lease, None if it is damaged. Raises `FileNotFoundError`."""
    return verified_line(file.read_bytes(), _FORM)


def _is_lease(value: dict[str, Any]) -> bool:
    pid = value.get("pid")
    return isinstance(pid, int) and 0 < pid < LARGEST_PID and isinstance(value.get("born"), float) and "host" in value


_FORM = Form(frozenset({"host", "pid", "born", "token"}), _is_lease)


def _has_heartbeat(work: Path) -> bool:
    try:
        probe = work / ".now"
        probe.touch()  # the clock of the file system, as for the heartbeat
        return probe.stat().st_mtime - (work / FILE).stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False
    except OSError:  # unknown: check again later
        return True


def _is_running(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - born) < CLOCK_SECONDS
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
