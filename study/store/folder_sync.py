"""A study's folder in a mirror and in its storage: fetched where a command starts, stored while a driver writes it."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from study.store.atomic import inside
from study.store.bucket_store import Mirror
from study.store.object_store import StoreUnavailable, each, grouped
from study.store.repeating import beating

SECONDS = 2.0
"""Between two looks at what a driver wrote."""
READING_SECONDS = 10.0
"""For so long a driver waits for a command that just reads the folder."""
JOURNAL = ".log"
GROWING = (JOURNAL, ".jsonl")
"""Files that lines are appended to: a last line that is not whole yet stays behind."""

Mark = tuple[int, int]
"""Size, and time in nanoseconds: both stay while a file does."""


def pull(mirror: Mirror, name: str) -> None:
    """Make the folder of a study what the storage has, unless a driver of this machine is writing it."""
    with suppress(Timeout), _driving(mirror, name):
        _pull(mirror, name)


def _pull(mirror: Mirror, name: str) -> dict[str, Mark]:
    folder, stored = _folder(mirror, name), _stored(mirror, name)
    for file in _files(folder).keys() - stored.keys():
        if not file.endswith(JOURNAL):
            (folder / file).unlink(missing_ok=True)
    _fetch(mirror, name, stored)
    return stored


def pull_all(mirror: Mirror, files: Collection[str]) -> None:
    """Fetch files of these names from the folders of all studies."""
    for folder, entries in grouped(mirror.remote.entries("studies"), 2).items():
        name = folder.partition("/")[2]
        with suppress(Timeout), _driving(mirror, name):
            marks = {file: (entry.bytes, entry.mtime_ns) for file, entry in entries.items() if file in files}
            _fetch(mirror, name, marks)


@contextmanager
def sharing(mirror: Mirror, name: str) -> Iterator[None]:
    """Store the files of a study's folder as they change while the block lasts, at last when it ends.

    Raises `OSError` where the last of them cannot be stored.
    """
    with _driven(mirror, name) as sent:
        try:
            with beating(lambda: _push(mirror, name, sent, hasty=True), "sharing", seconds=SECONDS):
                yield
        except BaseException:
            with suppress(StoreUnavailable):  # who interrupts does not wait for a store that is silent
                _push(mirror, name, sent, hasty=True)
            raise
        _push(mirror, name, sent)


@contextmanager
def _driven(mirror: Mirror, name: str) -> Iterator[dict[str, Mark]]:
    """Hold the folder of a study, and yield what the storage has of it."""
    lock = _driving(mirror, name)
    try:
        try:
            lock.acquire(timeout=READING_SECONDS)
            sent = _pull(mirror, name)
        except Timeout:  # another driver of this machine: both write the same files, and both store them
            sent = _stored(mirror, name)
        yield sent
    finally:
        lock.release()


def _push(mirror: Mirror, name: str, sent: dict[str, Mark], *, hasty: bool = False) -> None:
    """Store what is not as it was sent before, and remove what is gone."""
    remote = mirror.remote.hasty() if hasty else mirror.remote
    folder, found = _folder(mirror, name), _files(_folder(mirror, name))
    for file, mark in found.items():
        if sent.get(file) != mark:
            with suppress(FileNotFoundError):  # written anew at this moment
                remote.write(f"studies/{name}/{file}", _content(folder / file))
                sent[file] = mark
    for file in sent.keys() - found.keys():
        remote.delete(f"studies/{name}/{file}")
        del sent[file]


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    return content[: content.rfind(b"\n") + 1] if file.suffix in GROWING else content


def _fetch(mirror: Mirror, name: str, stored: dict[str, Mark]) -> None:
    folder = _folder(mirror, name)
    here = _files(folder)

    def fetch(file: str) -> None:
        with suppress(FileNotFoundError):  # removed since it was listed
            mirror.remote.get(f"studies/{name}/{file}", folder / file)
            os.utime(folder / file, ns=(stored[file][1], stored[file][1]))

    def is_ahead(file: str) -> bool:
        """Return whether a journal has lines that a driver of this machine could not store before it ended."""
        if not file.endswith(JOURNAL) or here.get(file, (0, 0))[0] <= stored[file][0]:
            return False
        content = mirror.remote.read(f"studies/{name}/{file}")  # another machine's may have gone another way
        return content is not None and (folder / file).read_bytes().startswith(content)

    each(fetch, [file for file, mark in stored.items() if here.get(file) != mark and not is_ahead(file)])


def _stored(mirror: Mirror, name: str) -> dict[str, Mark]:
    folder = f"studies/{name}"
    entries = mirror.remote.entries(folder)
    return {key.removeprefix(f"{folder}/"): (entry.bytes, entry.mtime_ns) for key, entry in entries.items()}


def _files(folder: Path) -> dict[str, Mark]:
    """Return the files of a folder; those under names that begin with a dot are being written."""
    found = {}
    for file in folder.rglob("[!.]*"):
        with suppress(FileNotFoundError):
            status = file.stat()
            if file.is_file():
                found[file.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found


def _folder(mirror: Mirror, name: str) -> Path:
    return inside(mirror.root / "studies", name)


def _driving(mirror: Mirror, name: str) -> FileLock:
    """Return a lock that a driver of this machine holds on a study's folder."""
    (mirror.root / "studies").mkdir(parents=True, exist_ok=True)
    return FileLock(inside(mirror.root / "studies", f".{name}.lock"), timeout=0)
