"""Synchronize the folder of a study with a bucket: download before a command, upload during a run."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from study.store.atomic import inside
from study.store.object_store import Remote, StoreUnavailable, for_each, group_by_folder
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


@dataclass(frozen=True)
class FolderSync:
    """Synchronizes the folders of studies below `root` with those in a bucket."""

    root: Path
    remote: Remote

    def pull(self, name: str) -> None:
        """Download the folder of a study, unless a driver on this machine is writing it."""
        with suppress(Timeout), self._lock(name):
            self._pull(name)

    def _pull(self, name: str) -> dict[str, FileStatus]:
        folder, stored = self._folder(name), self._stored(name)
        for file in _files(folder).keys() - stored.keys():
            if not file.endswith(JOURNAL):
                (folder / file).unlink(missing_ok=True)
        self._fetch(name, stored)
        return stored

    def pull_all(self, files: Collection[str]) -> None:
        """Download files of these names from the folders of all studies."""
        for folder, entries in group_by_folder(self.remote.entries("studies"), 2).items():
            name = folder.partition("/")[2]
            with suppress(Timeout), self._lock(name):
                self._fetch(
                    name, {file: (entry.bytes, entry.mtime_ns) for file, entry in entries.items() if file in files}
                )

    @contextmanager
    def uploading(self, name: str) -> Iterator[None]:
        """Upload changed files of a study folder during the block and when it ends.

        Raises `OSError` if the last upload fails.
        """
        with self._locked_folder(name) as sent:
            try:
                with call_periodically(lambda: self._push(name, sent, retry=False), "upload", seconds=SECONDS):
                    yield
            except BaseException:
                with suppress(StoreUnavailable):  # do not delay an interrupt
                    self._push(name, sent, retry=False)
                raise
            self._push(name, sent)

    @contextmanager
    def _locked_folder(self, name: str) -> Iterator[dict[str, FileStatus]]:
        """Lock the folder of a study, and yield the status of its stored files."""
        lock = self._lock(name)
        try:
            try:
                lock.acquire(timeout=READING_SECONDS)
                sent = self._pull(name)
            except Timeout:  # another driver on this machine: both write and upload the same files
                sent = self._stored(name)
            yield sent
        finally:
            lock.release()

    def _push(self, name: str, sent: dict[str, FileStatus], *, retry: bool = True) -> None:
        """Upload files that changed since the last upload, and delete removed ones."""
        remote = self.remote if retry else self.remote.without_retries()
        folder = self._folder(name)
        files = _files(folder)
        for file, status in files.items():
            if sent.get(file) != status:
                with suppress(FileNotFoundError):  # is being replaced
                    remote.write(f"studies/{name}/{file}", _complete_lines(folder / file))
                    sent[file] = status
        for file in sent.keys() - files.keys():
            remote.delete(f"studies/{name}/{file}")
            del sent[file]

    def _fetch(self, name: str, stored: dict[str, FileStatus]) -> None:
        folder = self._folder(name)
        local = _files(folder)

        def fetch(file: str) -> None:
            with suppress(FileNotFoundError):  # removed since it was listed
                self.remote.get(f"studies/{name}/{file}", folder / file)
                os.utime(folder / file, ns=(stored[file][1], stored[file][1]))

        def is_ahead(file: str) -> bool:
            """Return whether the local journal has lines that a driver could not upload before it ended."""
            if not file.endswith(JOURNAL) or local.get(file, (0, 0))[0] <= stored[file][0]:
                return False
            content = self.remote.read(f"studies/{name}/{file}")  # the journal of another machine may have diverged
            return content is not None and (folder / file).read_bytes().startswith(content)

        for_each(fetch, [file for file, status in stored.items() if local.get(file) != status and not is_ahead(file)])

    def _stored(self, name: str) -> dict[str, FileStatus]:
        folder = f"studies/{name}"
        entries = self.remote.entries(folder)
        return {key.removeprefix(f"{folder}/"): (entry.bytes, entry.mtime_ns) for key, entry in entries.items()}

    def _folder(self, name: str) -> Path:
        return inside(self.root, name)

    def _lock(self, name: str) -> FileLock:
        """Return the lock that a driver of this machine holds on the folder of a study."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(inside(self.root, f".{name}.lock"), timeout=0)


def _complete_lines(file: Path) -> bytes:
    content = file.read_bytes()
    return content[: content.rfind(b"\n") + 1] if file.suffix in GROWING else content


def _files(folder: Path) -> dict[str, FileStatus]:
    """Return the status of the files of a folder; names with a leading dot are temporary files."""
    files = {}
    for file in folder.rglob("[!.]*"):
        with suppress(FileNotFoundError):
            status = file.stat()
            if file.is_file():
                files[file.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return files
