"""A storage in a bucket, with a local mirror: downloaded files, and stages that wait for their upload."""

import functools
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study.store.atomic import AlteredFileError, Damage, damage, inside, read_signed, write_atomic
from study.store.backend import Backend, CheckpointCopies, FolderBackend, move_folder, remove_folders
from study.store.documents import MANIFEST_FORM
from study.store.folder_sync import FolderSync
from study.store.lease import is_leased, is_leased_remotely, lease, remote_lease
from study.store.object_store import Entry, Remote, for_each, group_by_folder, is_uri, writing_problem
from study.store.paths import CHECKPOINT_STATE, MANIFEST

ORIGIN = "origin"
"""Name of the file that marks a folder as a mirror; it contains the URI of the storage."""
FRESH_SECONDS = 5.0
"""Seconds for which the listing of a stage is cached if it lacks a file."""


def create_mirror(uri: str, cache: Path) -> Path:
    """Return the mirror of a storage in the cache of a node; create it if needed."""
    return mark_as_mirror(cache / "stores" / hashlib.blake2b(uri.encode(), digest_size=8).hexdigest(), uri)


def mark_as_mirror(root: Path, uri: str) -> Path:
    """Mark a folder as the mirror of a storage, and return it."""
    if not (root / ORIGIN).is_file():
        write_atomic(root / ORIGIN, uri)
    return root


def uri_of(root: Path) -> str | None:
    """Return the URI of the storage that a folder mirrors, None if the folder is a storage itself."""
    try:
        uri = (root / ORIGIN).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
        return None
    return uri if is_uri(uri) else None


def open_backend(root: Path) -> Backend:
    """Return the backend of a folder: a bucket if the folder mirrors one, else the folder itself."""
    uri = uri_of(root)
    return FolderBackend(root) if uri is None else _bucket_backend(root, uri)


@functools.cache
def _bucket_backend(root: Path, uri: str) -> "BucketBackend":
    return BucketBackend(root, Remote(uri))


class BucketBackend(Backend):
    """A storage in a bucket. Files of stages are downloaded if they are missing or differ from the manifest.

    A trained stage waits in `waiting/<digest>/` until it is uploaded. Its manifest is uploaded last and marks it
    finished.
    """

    def __init__(self, root: Path, remote: Remote) -> None:
        super().__init__(root)
        self.remote, self.origin = remote, remote.uri
        self._known: dict[str, tuple[float, Mapping[str, Entry]]] = {}
        self._listed = float("-inf")

    def finished(self) -> frozenset[str]:
        """Return the digests of all finished stages, from one listing."""
        stages = group_by_folder(self.remote.entries("stages"), 2)
        self._listed = time.monotonic()
        self._known = {folder.partition("/")[2]: (self._listed, names) for folder, names in stages.items()}
        return frozenset(digest for digest, (_, names) in self._known.items() if MANIFEST in names)

    def has(self, digest: str, name: str) -> bool:
        """Return whether a stage has a file; list its files again if it was missing a while ago."""
        return name in self._entries(digest, name)

    def names(self, digest: str) -> frozenset[str]:
        """Return the names of the files of a stage."""
        return frozenset(self._entries(digest))

    def _entries(self, digest: str, required: str = MANIFEST) -> Mapping[str, Entry]:
        """Return the files of a stage; list them again if the `required` one was missing a while ago."""
        listed_at, names = self._known.get(digest, (self._listed, {}))
        if required not in names and time.monotonic() - listed_at > FRESH_SECONDS:
            return self._list(digest)
        return names

    def refresh(self, digest: str) -> None:
        """List the files of a stage again."""
        self._list(digest)

    def _list(self, digest: str) -> Mapping[str, Entry]:
        folder = f"stages/{digest}"
        names = {key.removeprefix(f"{folder}/"): entry for key, entry in self.remote.entries(folder).items()}
        self._known[digest] = time.monotonic(), names
        return names

    def fetch(self, digest: str, name: str) -> Path:
        """Download a file unless the local copy matches the manifest; remove the copy if the file was removed."""
        if name != MANIFEST:
            self.fetch(digest, MANIFEST)
        path = inside(self.stage(digest), name)
        entry = self._entries(digest).get(name) or self._list(digest).get(name)
        if entry is None:
            path.unlink(missing_ok=True)
        elif not self._is_current(path, entry):
            try:
                self.remote.get(f"stages/{digest}/{name}", path)
                self._set_time(path, entry)
            except FileNotFoundError:  # removed since it was listed
                path.unlink(missing_ok=True)
                self.refresh(digest)
        return path

    def _is_current(self, path: Path, entry: Entry) -> bool:
        """Compare a manifest by its time in the bucket, other files by the manifest; unlisted ones must only exist."""
        if not path.is_file():
            return False
        if path.name == MANIFEST:
            return _has_entry_status(path, entry)
        expected = self._manifest_files(path.parent).get(path.name)
        return expected is None or damage(path.parent, {path.name: expected}) is None

    def _set_time(self, path: Path, entry: Entry) -> None:
        """Set the time of a fetched file to the expected one, so that checks need not hash it again."""
        expected = self._manifest_files(path.parent).get(path.name)
        if path.name == MANIFEST:
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
        elif expected is not None and damage(path.parent, {path.name: expected}) is None:
            os.utime(path, ns=(expected["mtime_ns"], expected["mtime_ns"]))

    def damage(self, digest: str, manifest: Mapping[str, Mapping[str, Any]]) -> Damage | None:
        """Return the first damaged file; only files written after the manifest are downloaded and hashed."""
        entries = self._entries(digest)
        for name, expected in manifest.items():
            if name not in entries:
                return name, f"{name} is missing"
            if entries[name].bytes != expected["bytes"]:
                return name, f"{name} has {entries[name].bytes} bytes, not the {expected['bytes']} that were written"
            if MANIFEST in entries and entries[name].mtime_ns > entries[MANIFEST].mtime_ns:
                self.discard_copy(digest, name)
                self.fetch(digest, name)
                damaged = damage(self.stage(digest), {name: expected})
                if damaged:
                    return damaged
        return None

    def publish(self, digest: str, draft: Path) -> bool:
        """Upload a stage; False if another attempt was first. Raises `OSError`; the stage then waits locally."""
        waiting = self._waiting(digest)
        with self._sending(digest):
            shutil.rmtree(waiting, ignore_errors=True)
            draft.rename(waiting)
            try:
                return self._send(digest)
            except OSError as error:
                raise OSError(
                    f"the stage is trained but {self.remote.uri} did not take it ({error}); it is kept in {waiting}; "
                    "run the study again once the storage answers: nothing is trained twice"
                ) from error

    def send_waiting(self) -> None:
        """Upload stages that wait because the store was unavailable."""
        for folder in sorted((self.root / "waiting").glob("[!.]*")):
            with suppress(Timeout), self._sending(folder.name, timeout=0):
                files = self._manifest_files(folder)
                if files and damage(folder, files) is None:
                    self._send(folder.name)
                else:
                    shutil.rmtree(folder, ignore_errors=True)

    def _send(self, digest: str) -> bool:
        waiting, folder = self._waiting(digest), self.stage(digest)
        first = MANIFEST not in self._list(digest)
        shutil.rmtree(folder, ignore_errors=True)
        if first:
            names = sorted((path.name for path in waiting.iterdir()), key=lambda name: (name == MANIFEST, name))
            for name in names:
                self.remote.put(waiting / name, f"stages/{digest}/{name}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            waiting.rename(folder)
            self._set_time(folder / MANIFEST, self._list(digest)[MANIFEST])
        else:
            shutil.rmtree(waiting)
        return first

    def upload(self, digest: str, *names: str) -> None:
        """Upload new or changed files of a finished stage, in this order."""
        for name in names:
            path = self.stage(digest) / name
            self._set_time(path, self.remote.put(path, f"stages/{digest}/{name}"))
        self.refresh(digest)

    def remove(self, digest: str, name: str) -> None:
        """Remove a file of a stage, and its local copy."""
        self.discard_copy(digest, name)
        if self.has(digest, name):
            self.remote.delete(f"stages/{digest}/{name}")
            self.refresh(digest)

    def remove_folders(self, folders: Iterable[str]) -> None:
        """Remove folders, and their local copies."""
        folders = list(folders)
        remove_folders(self.root / folder for folder in folders)
        for_each(self.remote.delete_folder, folders)

    def discard_copy(self, digest: str, name: str) -> bool:
        """Remove the local copy of a file: copies of thousands of stages would fill the disk of a node."""
        inside(self.stage(digest), name).unlink(missing_ok=True)
        return True

    def withdraw(self, digest: str, target: Path) -> None:
        """Remove the manifest of a stage that will be published again, and move the local copies."""
        self._remove_manifest(digest)
        move_folder(self.stage(digest), target)

    def _remove_manifest(self, digest: str) -> None:
        self.remote.delete(f"stages/{digest}/{MANIFEST}")
        self.refresh(digest)

    def set_aside(self, digest: str, target: str) -> None:
        """Move a stage to another folder of the bucket. Its manifest is removed first, which makes it unfinished."""
        for name in self._list(digest):
            self.remote.copy(f"stages/{digest}/{name}", f"{target}/{name}")
        self._remove_manifest(digest)
        self.remote.delete_folder(f"stages/{digest}")
        shutil.rmtree(self.stage(digest), ignore_errors=True)
        self.refresh(digest)

    def set_files_aside(self, digest: str, target: str, names: Iterable[str]) -> None:
        """Move files of a stage to another folder of the bucket."""
        stored = self._list(digest)
        for name in names:
            if name in stored:
                self.remote.copy(f"stages/{digest}/{name}", f"{target}/{name}")
                self.remote.delete(f"stages/{digest}/{name}")
            self.discard_copy(digest, name)
        self.refresh(digest)

    def prefetch(self, files: Iterable[tuple[str, str]]) -> None:
        """Download files of stages, given by digest and name, in parallel."""
        for_each(lambda file: self.fetch(*file), files)

    @contextmanager
    def lease(self, digest: str) -> Iterator[None]:
        """Lease a stage on this machine and in the bucket; upload stages that wait since an earlier attempt.

        Object stores have no locks: two machines that start at once may both get the lease.
        """
        with lease(self.work(digest)), remote_lease(self.remote, digest):
            self.send_waiting()
            self.refresh(digest)
            yield

    def is_leased(self, digest: str) -> bool:
        """Return whether a process of any machine has leased a stage and is alive."""
        return is_leased_remotely(self.remote, digest) or is_leased(self.work(digest))

    def checkpoint_copies(self, digest: str) -> CheckpointCopies:
        """Return the copies of a stage's checkpoints in the bucket."""
        return BucketCopies(self.remote, digest)

    def pull_study(self, name: str) -> None:
        """Download the current folder of a study, unless a driver on this machine is writing it."""
        self._studies.pull(name)

    def pull_studies(self, files: Collection[str]) -> None:
        """Download files of these names from the folders of all studies."""
        self._studies.pull_all(files)

    def uploading_study(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that uploads changed files of a study's folder."""
        return self._studies.uploading(name)

    @property
    def _studies(self) -> FolderSync:
        return FolderSync(self.root / "studies", self.remote)

    def add_file(self, file: Path, key: str) -> None:
        """Upload a file, then copy it into the mirror: files that exist there are not uploaded."""
        self.remote.put(file, key)
        FolderBackend(self.root).add_file(file, key)

    def create_file(self, file: Path, key: str) -> None:
        """Upload a file unless the bucket has one of this key, and copy what it has into the mirror.

        Object stores have no exclusive creation: of two machines that upload at once, the later one wins.
        """
        if self.remote.read(key) is None:
            self.remote.put(file, key)
        self.remote.get(key, self.root / key)

    def find_file(self, folder: str, suffix: str) -> Path | None:
        """Return a file of a folder with this suffix; download it if it is not in the mirror."""
        local = FolderBackend(self.root).find_file(folder, suffix)
        if local is not None:
            return local
        key = next((key for key in self.remote.entries(folder) if key.endswith(suffix)), None)
        if key is not None:
            self.remote.get(key, self.root / key)
        return None if key is None else self.root / key

    def folder_sizes(self, places: Iterable[str]) -> dict[str, int]:
        """Return the bytes of each folder in the bucket."""
        entries = {key: entry for place in places for key, entry in self.remote.entries(place).items()}
        return {
            folder: sum(file.bytes for file in files.values()) for folder, files in group_by_folder(entries, 2).items()
        }

    def writing_problem(self) -> str | None:
        """Return why the bucket is not writable, None if it is."""
        return writing_problem(self.remote)

    def _waiting(self, digest: str) -> Path:
        return inside(self.root / "waiting", digest)

    def _sending(self, digest: str, timeout: float = -1) -> FileLock:
        """Return a lock between the processes of this machine, so that only one uploads a stage."""
        (self.root / "waiting").mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / "waiting" / f".{digest}.lock", timeout=timeout)

    @staticmethod
    def _manifest_files(folder: Path) -> dict[str, dict[str, Any]]:
        with suppress(AlteredFileError):
            return dict((read_signed(folder / MANIFEST, MANIFEST_FORM) or {}).get("files", {}))
        return {}


def _has_entry_status(path: Path, entry: Entry) -> bool:
    status = path.stat()
    return (status.st_size, status.st_mtime_ns) == (entry.bytes, entry.mtime_ns)


class BucketCopies(CheckpointCopies):
    """Copies of the last checkpoint of a stage in a bucket.

    They are uploaded in the background during training; a failed upload is ignored.
    """

    def __init__(self, remote: Remote, digest: str) -> None:
        self._remote, self._folder = remote.without_retries(), f"work/{digest}"
        self._thread = threading.Thread()

    def send(self, folder: Path) -> None:
        """Start the upload of a checkpoint, unless an earlier upload is still running."""
        if not self._thread.is_alive():
            self.sending = folder
            self._thread = threading.Thread(target=self._send, args=(folder,), name="checkpoint", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for the running upload."""
        if self._thread.is_alive():
            self._thread.join()

    def fetch(self, work: Path) -> None:
        """Download the most advanced checkpoint, unless there is an equally advanced local one."""
        with suppress(OSError):
            stored = self._complete_checkpoints()
            newest_folder = max(stored, key=lambda folder: folder.rpartition("/")[2], default="")
            newest_local = max((path.name for path in work.glob("*/epoch-*")), default="")
            attempt, _, name = newest_folder.removeprefix(f"{self._folder}/").partition("/")
            if name > newest_local:
                temporary = work / attempt / "aside"
                for file in stored[newest_folder]:
                    self._remote.get(f"{newest_folder}/{file}", temporary / file)
                temporary.rename(work / attempt / name)

    def _send(self, checkpoint: Path) -> None:
        with suppress(OSError):
            sent = f"{self._folder}/{checkpoint.parent.name}/{checkpoint.name}"
            for file in sorted(checkpoint.iterdir(), key=lambda file: file.name == CHECKPOINT_STATE):
                self._remote.put(file, f"{sent}/{file.name}")
            for folder in self._complete_checkpoints().keys() - {sent}:
                self._remote.delete_folder(folder)
        self.sending = None

    def _complete_checkpoints(self) -> dict[str, dict[str, Entry]]:
        """Return the files of the stored checkpoints that are complete."""
        folders = group_by_folder(self._remote.entries(self._folder), 4)
        return {folder: files for folder, files in folders.items() if CHECKPOINT_STATE in files}
