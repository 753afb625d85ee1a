"""A local mirror of a storage in a bucket: downloaded files, and files that wait for their upload."""

import functools
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study.store.atomic import AlteredFileError, Damage, damage, inside, read_signed, write_atomic
from study.store.documents import SEAL_FORM
from study.store.object_store import Entry, Remote, for_each, group_by_folder, is_uri, writing_problem
from study.store.paths import SEAL

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


def mirror_of(root: Path) -> "Mirror | None":
    """Return the mirror of a folder, None if the folder is a storage itself."""
    try:
        uri = (root / ORIGIN).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
        return None
    return _mirror(root, uri) if is_uri(uri) else None


@functools.cache
def _mirror(root: Path, uri: str) -> "Mirror":
    return Mirror(root, Remote(uri))


class Mirror:
    """A mirror with the layout of a storage. Files of stages are fetched if they are missing or differ from the seal.

    A trained stage waits in `waiting/<digest>/` until it is uploaded. Its seal is uploaded last and marks it finished.
    """

    def __init__(self, root: Path, remote: Remote) -> None:
        self.root, self.remote = root, remote
        self._known: dict[str, tuple[float, Mapping[str, Entry]]] = {}
        self._listed = float("-inf")

    def finished(self) -> frozenset[str]:
        """Return the digests of all finished stages, from one listing."""
        stages = group_by_folder(self.remote.entries("stages"), 2)
        self._listed = time.monotonic()
        self._known = {folder.partition("/")[2]: (self._listed, names) for folder, names in stages.items()}
        return frozenset(digest for digest, (_, names) in self._known.items() if SEAL in names)

    def names(self, digest: str, required: str = SEAL) -> Mapping[str, Entry]:
        """Return the files of a stage; list them again if the `required` one was missing a while ago."""
        listed_at, names = self._known.get(digest, (self._listed, {}))
        if required not in names and time.monotonic() - listed_at > FRESH_SECONDS:
            return self.refresh(digest)
        return names

    def refresh(self, digest: str) -> Mapping[str, Entry]:
        """List the files of a stage and return them."""
        folder = f"stages/{digest}"
        names = {key.removeprefix(f"{folder}/"): entry for key, entry in self.remote.entries(folder).items()}
        self._known[digest] = time.monotonic(), names
        return names

    def fetch(self, digest: str, name: str) -> None:
        """Fetch a file of a stage unless the local copy matches the seal; remove the copy if the file was removed."""
        if name != SEAL:
            self.fetch(digest, SEAL)
        path = inside(self._stage(digest), name)
        entry = self.names(digest).get(name) or self.refresh(digest).get(name)
        if entry is None:
            path.unlink(missing_ok=True)
        elif not self._is_current(path, entry):
            try:
                self.remote.get(f"stages/{digest}/{name}", path)
                self._set_time(path, entry)
            except FileNotFoundError:  # removed since it was listed
                path.unlink(missing_ok=True)
                self.refresh(digest)

    def _is_current(self, path: Path, entry: Entry) -> bool:
        """Compare a seal by its time in the store, and a sealed file by the seal; others only have to exist."""
        if not path.is_file():
            return False
        if path.name == SEAL:
            return _has_entry_status(path, entry)
        sealed = self._sealed_files(path.parent).get(path.name)
        return sealed is None or damage(path.parent, {path.name: sealed}) is None

    def _set_time(self, path: Path, entry: Entry) -> None:
        """Set the time of a fetched file to the expected one, so that checks need not hash it again."""
        sealed = self._sealed_files(path.parent).get(path.name)
        if path.name == SEAL:
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
        elif sealed is not None and damage(path.parent, {path.name: sealed}) is None:
            os.utime(path, ns=(sealed["mtime_ns"], sealed["mtime_ns"]))

    def damage(self, digest: str, sealed: Mapping[str, Mapping[str, Any]]) -> Damage | None:
        """Return the first damaged file of a stored stage; only files written after its seal are fetched and hashed."""
        entries = self.names(digest)
        for name, expected in sealed.items():
            if name not in entries:
                return name, f"{name} is missing"
            if entries[name].bytes != expected["bytes"]:
                return name, f"{name} has {entries[name].bytes} bytes, not the {expected['bytes']} that were written"
            if SEAL in entries and entries[name].mtime_ns > entries[SEAL].mtime_ns:
                inside(self._stage(digest), name).unlink(missing_ok=True)
                self.fetch(digest, name)
                damaged = damage(self._stage(digest), {name: expected})
                if damaged:
                    return damaged
        return None

    def publish(self, digest: str, draft: Path) -> bool:
        """Upload a sealed stage. False if another attempt was first. Raises `OSError`; the stage then waits locally."""
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
                sealed = self._sealed_files(folder)
                if sealed and damage(folder, sealed) is None:
                    self._send(folder.name)
                else:
                    shutil.rmtree(folder, ignore_errors=True)

    def _send(self, digest: str) -> bool:
        waiting, folder = self._waiting(digest), self._stage(digest)
        first = SEAL not in self.refresh(digest)
        shutil.rmtree(folder, ignore_errors=True)
        if first:
            names = sorted((path.name for path in waiting.iterdir()), key=lambda name: (name == SEAL, name))
            for name in names:
                self.remote.put(waiting / name, f"stages/{digest}/{name}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            waiting.rename(folder)
            self._set_time(folder / SEAL, self.refresh(digest)[SEAL])
        else:
            shutil.rmtree(waiting)
        return first

    def upload(self, digest: str, *names: str) -> None:
        """Upload new or changed files of a finished stage, in this order."""
        for name in names:
            path = self._stage(digest) / name
            self._set_time(path, self.remote.put(path, f"stages/{digest}/{name}"))
        self.refresh(digest)

    def remove(self, digest: str, name: str) -> None:
        """Remove a file of a stage."""
        if name in self.names(digest):
            self.remote.delete(f"stages/{digest}/{name}")
            self.refresh(digest)

    def forget(self, digest: str, name: str) -> None:
        """Remove the local copy of a file: copies of thousands of stages would fill the disk of a node."""
        inside(self._stage(digest), name).unlink(missing_ok=True)

    def unfinish(self, digest: str) -> None:
        """Remove the seal of a stage that will be published again."""
        self.remote.delete(f"stages/{digest}/{SEAL}")
        self.refresh(digest)

    def set_aside(self, digest: str, target: str) -> None:
        """Move a stage to another folder of the storage. Its seal is removed first, which makes it unfinished."""
        names = self.refresh(digest)
        for name in names:
            self.remote.copy(f"stages/{digest}/{name}", f"{target}/{name}")
        self.unfinish(digest)
        self.remote.delete_folder(f"stages/{digest}")
        shutil.rmtree(self._stage(digest), ignore_errors=True)
        self.refresh(digest)

    def set_files_aside(self, digest: str, target: str, names: Iterable[str]) -> None:
        """Move files of a stage to another folder of the storage."""
        stored = self.refresh(digest)
        for name in names:
            if name in stored:
                self.remote.copy(f"stages/{digest}/{name}", f"{target}/{name}")
                self.remote.delete(f"stages/{digest}/{name}")
            self.forget(digest, name)
        self.refresh(digest)

    def fetch_all(self, files: Iterable[tuple[str, str]]) -> None:
        """Fetch files of stages, given by digest and name, in parallel."""
        for_each(lambda file: self.fetch(*file), files)

    def writing_problem(self) -> str | None:
        """Return why the storage is not writable, None if it is."""
        return writing_problem(self.remote)

    def _stage(self, digest: str) -> Path:
        return inside(self.root / "stages", digest)

    def _waiting(self, digest: str) -> Path:
        return inside(self.root / "waiting", digest)

    def _sending(self, digest: str, timeout: float = -1) -> FileLock:
        """Return a lock between the processes of this machine, so that only one uploads a stage."""
        (self.root / "waiting").mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / "waiting" / f".{digest}.lock", timeout=timeout)

    @staticmethod
    def _sealed_files(folder: Path) -> dict[str, dict[str, Any]]:
        with suppress(AlteredFileError):
            return dict((read_signed(folder / SEAL, SEAL_FORM) or {}).get("files", {}))
        return {}


def _has_entry_status(path: Path, entry: Entry) -> bool:
    status = path.stat()
    return (status.st_size, status.st_mtime_ns) == (entry.bytes, entry.mtime_ns)
