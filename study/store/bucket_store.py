"""A folder of this machine that stands for a storage elsewhere: what was fetched of it, and what is to go there."""

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
from study.store.object_store import Entry, Remote, each, grouped, is_uri, writing_problem
from study.store.paths import SEAL

ORIGIN = "origin"
"""The file that makes a folder a mirror: the URI it stands for."""
FRESH_SECONDS = 5.0
"""For so long a stage, or a file of one, that was not there is not asked for again."""


def made_mirror(uri: str, cache: Path) -> Path:
    """Return the mirror of a storage in a node's cache, made where there is none."""
    return as_mirror(cache / "stores" / hashlib.blake2b(uri.encode(), digest_size=8).hexdigest(), uri)


def as_mirror(root: Path, uri: str) -> Path:
    """Make a folder the mirror of a storage."""
    if not (root / ORIGIN).is_file():
        write_atomic(root / ORIGIN, uri)
    return root


def mirror_of(root: Path) -> "Mirror | None":
    """Return what a folder mirrors, None for a storage that lies there itself."""
    try:
        uri = (root / ORIGIN).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
        return None
    return _mirror(root, uri) if is_uri(uri) else None


@functools.cache
def _mirror(root: Path, uri: str) -> "Mirror":
    return Mirror(root, Remote(uri))


class Mirror:
    """`root` is laid out as a storage. Files of stages are fetched where they are missing or are not those sealed.

    A trained stage waits in `waiting/<digest>/` until all of it has arrived; its seal goes last, and makes it finished.
    """

    def __init__(self, root: Path, remote: Remote) -> None:
        self.root, self.remote = root, remote
        self._known: dict[str, tuple[float, Mapping[str, Entry]]] = {}
        self._listed = float("-inf")

    def finished(self) -> frozenset[str]:
        """Return the digests of all finished stages, from one listing."""
        stages = grouped(self.remote.entries("stages"), 2)
        self._listed = time.monotonic()
        self._known = {folder.partition("/")[2]: (self._listed, names) for folder, names in stages.items()}
        return frozenset(digest for digest, (_, names) in self._known.items() if SEAL in names)

    def names(self, digest: str, wanted: str = SEAL) -> Mapping[str, Entry]:
        """Return the files of a stage; asked again where one that is `wanted` was missing a while ago."""
        at, names = self._known.get(digest, (self._listed, {}))
        if wanted not in names and time.monotonic() - at > FRESH_SECONDS:
            return self.refresh(digest)
        return names

    def refresh(self, digest: str) -> Mapping[str, Entry]:
        """Return the files of a stage as they are now."""
        folder = f"stages/{digest}"
        names = {key.removeprefix(f"{folder}/"): entry for key, entry in self.remote.entries(folder).items()}
        self._known[digest] = time.monotonic(), names
        return names

    def bring(self, digest: str, name: str) -> None:
        """Fetch a file of a stage unless it is here as it was sealed; one that is not there any more goes here too."""
        if name != SEAL:
            self.bring(digest, SEAL)
        place = inside(self._stage(digest), name)
        there = self.names(digest).get(name) or self.refresh(digest).get(name)
        if there is None:
            place.unlink(missing_ok=True)
        elif not self._is_here(place, there):
            try:
                self.remote.get(f"stages/{digest}/{name}", place)
                self._date(place, there)
            except FileNotFoundError:  # removed since it was listed
                place.unlink(missing_ok=True)
                self.refresh(digest)

    def _is_here(self, place: Path, there: Entry) -> bool:
        """A seal is known by the time the store gave it, a sealed file by what the seal says, another by its name."""
        if not place.is_file():
            return False
        if place.name == SEAL:
            return _same(place, there)
        mark = self._marks(place.parent).get(place.name)
        return mark is None or damage(place.parent, {place.name: mark}) is None

    def _date(self, place: Path, there: Entry) -> None:
        """Give a fetched file the time by which it is known, so that it is not read again for being checked."""
        mark = self._marks(place.parent).get(place.name)
        if place.name == SEAL:
            os.utime(place, ns=(there.mtime_ns, there.mtime_ns))
        elif mark is not None and damage(place.parent, {place.name: mark}) is None:
            os.utime(place, ns=(mark["mtime_ns"], mark["mtime_ns"]))

    def damage(self, digest: str, sealed: Mapping[str, Mapping[str, Any]]) -> Damage | None:
        """Return the first stored file of a stage that is damaged; only those written after its seal are fetched."""
        there = self.names(digest)
        for name, mark in sealed.items():
            if name not in there:
                return name, f"{name} is missing"
            if there[name].bytes != mark["bytes"]:
                return name, f"{name} has {there[name].bytes} bytes, not the {mark['bytes']} that were written"
            if SEAL in there and there[name].mtime_ns > there[SEAL].mtime_ns:
                inside(self._stage(digest), name).unlink(missing_ok=True)
                self.bring(digest, name)
                what = damage(self._stage(digest), {name: mark})
                if what:
                    return what
        return None

    def publish(self, digest: str, draft: Path) -> bool:
        """Store a sealed stage. False where another attempt was first. Raises `OSError`; the stage waits here then."""
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
        """Store what waits here since the store did not answer."""
        for folder in sorted((self.root / "waiting").glob("[!.]*")):
            with suppress(Timeout), self._sending(folder.name, timeout=0):
                marks = self._marks(folder)
                if marks and damage(folder, marks) is None:
                    self._send(folder.name)
                else:
                    shutil.rmtree(folder, ignore_errors=True)

    def _send(self, digest: str) -> bool:
        waiting, place = self._waiting(digest), self._stage(digest)
        first = SEAL not in self.refresh(digest)
        shutil.rmtree(place, ignore_errors=True)
        if first:
            names = sorted((path.name for path in waiting.iterdir()), key=lambda name: (name == SEAL, name))
            for name in names:
                self.remote.put(waiting / name, f"stages/{digest}/{name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            waiting.rename(place)
            self._date(place / SEAL, self.refresh(digest)[SEAL])
        else:
            shutil.rmtree(waiting)
        return first

    def share(self, digest: str, *names: str) -> None:
        """Store files of a finished stage that were written or changed here, in this order."""
        for name in names:
            place = self._stage(digest) / name
            self._date(place, self.remote.put(place, f"stages/{digest}/{name}"))
        self.refresh(digest)

    def remove(self, digest: str, name: str) -> None:
        """Remove a file of a stage."""
        if name in self.names(digest):
            self.remote.delete(f"stages/{digest}/{name}")
            self.refresh(digest)

    def forget(self, digest: str, name: str) -> None:
        """Remove this machine's copy of a stored file: of thousands of stages they would fill a node's disk."""
        inside(self._stage(digest), name).unlink(missing_ok=True)

    def unfinish(self, digest: str) -> None:
        """Take the seal off a stage that is stored anew."""
        self.remote.delete(f"stages/{digest}/{SEAL}")
        self.refresh(digest)

    def set_aside(self, digest: str, aside: str) -> None:
        """Move a stage to another folder of the storage; its seal goes first, so that nobody takes it for finished."""
        names = self.refresh(digest)
        for name in names:
            self.remote.copy(f"stages/{digest}/{name}", f"{aside}/{name}")
        self.unfinish(digest)
        self.remote.delete_folder(f"stages/{digest}")
        shutil.rmtree(self._stage(digest), ignore_errors=True)
        self.refresh(digest)

    def set_files_aside(self, digest: str, aside: str, names: Iterable[str]) -> None:
        """Move files of a stage to another folder of the storage."""
        stored = self.refresh(digest)
        for name in names:
            if name in stored:
                self.remote.copy(f"stages/{digest}/{name}", f"{aside}/{name}")
                self.remote.delete(f"stages/{digest}/{name}")
            self.forget(digest, name)
        self.refresh(digest)

    def bring_all(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Fetch many files of stages, several at once."""
        each(lambda one: self.bring(*one), wanted)

    def writing_problem(self) -> str | None:
        """Return why nothing can be stored, None where it can."""
        return writing_problem(self.remote)

    def _stage(self, digest: str) -> Path:
        return inside(self.root / "stages", digest)

    def _waiting(self, digest: str) -> Path:
        return inside(self.root / "waiting", digest)

    def _sending(self, digest: str, timeout: float = -1) -> FileLock:
        """Return a lock between processes of this machine: one of them sends a stage."""
        (self.root / "waiting").mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / "waiting" / f".{digest}.lock", timeout=timeout)

    @staticmethod
    def _marks(folder: Path) -> dict[str, dict[str, Any]]:
        with suppress(AlteredFileError):
            return dict((read_signed(folder / SEAL, SEAL_FORM) or {}).get("files", {}))
        return {}


def _same(place: Path, there: Entry) -> bool:
    status = place.stat()
    return (status.st_size, status.st_mtime_ns) == (there.bytes, there.mtime_ns)
