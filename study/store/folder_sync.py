"""Synchronize the folder of a study with a bucket: download before a command, upload during a run."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from study.store.atomic import inside
from study.store.bucket_store import Mirror
from study.store.object_store import StoreUnavailable, for_each, group_by_folder
from study.store.repeating import call_periodically

SECONDS = 2.0
"""Interval between uploads."""
READING_SECONDS = 10.0
"""Timeout in which a driver waits for a command that downloads the folder."""
JOURNAL = ".log"
GROWING = (JOURNAL, ".jsonl")
"""Suffixes of files to which lines are appended; an incomplete last line is not uploaded."""

FileStatus = tuple[int, int]
"""Size and modification time in nanoseconds; both are equal for an unchanged file."""


def pull(mirror: Mirror, name: str) -> None:
    """Download the folder of a study, unless a driver on this machine is writing it."""
    with suppress(Timeout), _folder_lock(mirror, name):
        _pull(mirror, name)


def _pull(mirror: Mirror, name: str) -> dict[str, FileStatus]:
    folder, stored = _folder(mirror, name), _stored(mirror, name)
    for file in _files(folder).keys() - stored.keys():
        if not file.endswith(JOURNAL):
            (folder / file).unlink(missing_ok=True)
    _fetch(mirror, name, stored)
    return stored


def pull_all(mirror: Mirror, files: Collection[str]) -> None:
    """Download files of these names from the folders of all studies."""
    for folder, entries in group_by_folder(mirror.remote.entries("studies"), 2).items():
        name = folder.partition("/")[2]
        with suppress(Timeout), _folder_lock(mirror, name):
            statuses = {file: (entry.bytes, entry.mtime_ns) for file, entry in entries.items() if file in files}
            _fetch(mirror, name, statuses)


@contextmanager
def uploading(mirror: Mirror, name: str) -> Iterator[None]:
    """Upload changed files of a study folder during the block and when it ends.

    Raises `OSError` if the last upload fails.
    """
    with _locked_folder(mirror, name) as sent:
        try:
            with call_periodically(lambda: _push(mirror, name, sent, retry=False), "upload", seconds=SECONDS):
                yield
        except BaseException:
            with suppress(StoreUnavailable):  # do not delay an interrupt
                _push(mirror, name, sent, retry=False)
            raise
        _push(mirror, name, sent)


@contextmanager
def _locked_folder(mirror: Mirror, name: str) -> Iterator[dict[str, FileStatus]]:
    """Lock the folder of a study, and yield the status of its stored files."""
    lock = _folder_lock(mirror, name)
    try:
        try:
            lock.acquire(timeout=READING_SECONDS)
            sent = _pull(mirror, name)
        except Timeout:  # another driver on this machine: both write and upload the same files
            sent = _stored(mirror, name)
        yield sent
    finally:
        lock.release()


def _push(mirror: Mirror, name: str, sent: dict[str, FileStatus], *, retry: bool = True) -> None:
    """Upload files that changed since the last upload, and delete removed ones."""
    remote = mirror.remote if retry else mirror.remote.without_retries()
    folder, files = _folder(mirror, name), _files(_folder(mirror, name))
    for file, status in files.items():
        if sent.get(file) != status:
            with suppress(FileNotFoundError):  # is being replaced
                remote.write(f"studies/{name}/{file}", _complete_lines(folder / file))
                sent[file] = status
    for file in sent.keys() - files.keys():
        remote.delete(f"studies/{name}/{file}")
        del sent[file]


def _complete_lines(file: Path) -> bytes:
    content = file.read_bytes()
    return content[: content.rfind(b"\n") + 1] if file.suffix in GROWING else content


def _fetch(mirror: Mirror, name: str, stored: dict[str, FileStatus]) -> None:
    folder = _folder(mirror, name)
    local = _files(folder)

    def fetch(file: str) -> None:
        with suppress(FileNotFoundError):  # removed since it was listed
            mirror.remote.get(f"studies/{name}/{file}", folder / file)
            os.utime(folder / file, ns=(stored[file][1], stored[file][1]))

    def is_ahead(file: str) -> bool:
        """Return whether the local journal has lines that a driver could not upload before it ended."""
        if not file.endswith(JOURNAL) or local.get(file, (0, 0))[0] <= stored[file][0]:
            return False
        content = mirror.remote.read(f"studies/{name}/{file}")  # the journal of another machine may have diverged
        return content is not None and (folder / file).read_bytes().startswith(content)

    for_each(fetch, [file for file, status in stored.items() if local.get(file) != status and not is_ahead(file)])


def _stored(mirror: Mirror, name: str) -> dict[str, FileStatus]:
    folder = f"studies/{name}"
    entries = mirror.remote.entries(folder)
    return {key.removeprefix(f"{folder}/"): (entry.bytes, entry.mtime_ns) for key, entry in entries.items()}


def _files(folder: Path) -> dict[str, FileStatus]:
    """Return the status of the files of a folder; names with a leading dot are temporary files."""
    files = {}
    for file in folder.rglob("[!.]*"):
        with suppress(FileNotFoundError):
            status = file.stat()
            if file.is_file():
                files[file.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return files


def _folder(mirror: Mirror, name: str) -> Path:
    return inside(mirror.root / "studies", name)


def _folder_lock(mirror: Mirror, name: str) -> FileLock:
    """Return the lock that a driver of this machine holds on the folder of a study."""
    (mirror.root / "studies").mkdir(parents=True, exist_ok=True)
    return FileLock(inside(mirror.root / "studies", f".{name}.lock"), timeout=0)
