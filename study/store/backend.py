"""Where the files of a storage are kept: the interface of a backend, and a folder as the simplest one."""

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from datasets.cache.atomic_files import atomic_path
from study.store.atomic import Damage, damage, inside, writing_problem
from study.store.lease import is_leased, lease
from study.store.paths import MANIFEST

FOLDERS = "stages", "work", "studies", "weights"
"""Folders of a storage that a run writes to."""


class CheckpointCopies:
    """Copies of the last checkpoint of a stage for attempts on other machines; a shared folder needs none."""

    sending: Path | None = None
    """The checkpoint being uploaded; it must not be removed, even if a newer one exists."""

    def send(self, folder: Path) -> None:
        """Start the upload of a checkpoint, unless an earlier upload is still running."""

    def wait(self) -> None:
        """Wait for the running upload."""

    def fetch(self, work: Path) -> None:
        """Download the most advanced checkpoint, unless there is an equally advanced local one."""


class Backend(ABC):
    """The files of a storage, below a local folder `root` from which they are read.

    Digests and names of files are checked by `study.store.atomic.inside`, which raises `ValueError`.
    """

    origin: str | None = None
    """The URI of the storage, None if it is `root` itself."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stage(self, digest: str) -> Path:
        """Return the local folder of a finished stage."""
        return inside(self.root / "stages", digest)

    def work(self, digest: str) -> Path:
        """Return the local folder of the attempts at a stage."""
        return inside(self.root / "work", digest)

    @abstractmethod
    def finished(self) -> frozenset[str]:
        """Return the digests of all finished stages, from one listing."""

    @abstractmethod
    def has(self, digest: str, name: str) -> bool:
        """Return whether a stage has a file."""

    @abstractmethod
    def names(self, digest: str) -> frozenset[str]:
        """Return the names of the files of a stage."""

    @abstractmethod
    def damage(self, digest: str, manifest: Mapping[str, Mapping[str, Any]]) -> Damage | None:
        """Return the first file of a stage that differs from its manifest in size, time or content."""

    @abstractmethod
    def fetch(self, digest: str, name: str) -> Path:
        """Return the local path of a file of a stage; download it if it is missing or outdated."""

    @abstractmethod
    def prefetch(self, files: Iterable[tuple[str, str]]) -> None:
        """Download files of stages, given by digest and name, in parallel."""

    @abstractmethod
    def refresh(self, digest: str) -> None:
        """Forget what is cached about the files of a stage."""

    @abstractmethod
    def discard_copy(self, digest: str, name: str) -> bool:
        """Remove the local copy of a file, and return whether it can be downloaded again."""

    @abstractmethod
    def publish(self, digest: str, draft: Path) -> bool:
        """Publish a folder with a manifest as a finished stage. Return False if another attempt was first."""

    @abstractmethod
    def withdraw(self, digest: str, target: Path) -> None:
        """Make a stage unfinished, and move its local folder to `target`."""

    @abstractmethod
    def upload(self, digest: str, *names: str) -> None:
        """Store local files of a finished stage, in this order."""

    @abstractmethod
    def remove(self, digest: str, name: str) -> None:
        """Remove a file of a stage."""

    @abstractmethod
    def remove_folders(self, folders: Iterable[str]) -> None:
        """Remove folders, given relative to the storage. Raises `OSError` if one cannot be removed."""

    @abstractmethod
    def set_aside(self, digest: str, target: str) -> None:
        """Move a stage to another folder of the storage, which makes it unfinished."""

    @abstractmethod
    def set_files_aside(self, digest: str, target: str, names: Iterable[str]) -> None:
        """Move files of a stage to another folder of the storage."""

    @abstractmethod
    def lease(self, digest: str) -> AbstractContextManager[None]:
        """Lease a stage during the block; see `study.store.lease`. Raises `LeaseHeld`."""

    @abstractmethod
    def is_leased(self, digest: str) -> bool:
        """Return whether a process has leased a stage and is alive."""

    @abstractmethod
    def checkpoint_copies(self, digest: str) -> CheckpointCopies:
        """Return the copies of a stage's checkpoints."""

    @abstractmethod
    def pull_study(self, name: str) -> None:
        """Download the current folder of a study."""

    @abstractmethod
    def pull_studies(self, files: Collection[str]) -> None:
        """Download files of these names from the folders of all studies."""

    @abstractmethod
    def uploading_study(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that uploads changed files of a study's folder."""

    @abstractmethod
    def add_file(self, file: Path, key: str) -> None:
        """Copy a file into the storage, to a path relative to it."""

    @abstractmethod
    def create_file(self, file: Path, key: str) -> None:
        """Copy a file into the storage, unless a file is at this path, which is kept."""

    @abstractmethod
    def find_file(self, folder: str, suffix: str) -> Path | None:
        """Return the local path of a file in a folder of the storage; None if no file has this suffix."""

    @abstractmethod
    def folder_sizes(self, places: Iterable[str]) -> dict[str, int]:
        """Return the bytes of each folder inside these folders of the storage, by relative path."""

    @abstractmethod
    def writing_problem(self) -> str | None:
        """Return why the storage is not writable, None if it is."""


class FolderBackend(Backend):
    """A storage in a folder that all processes share."""

    def finished(self) -> frozenset[str]:
        """Return the names of the folders of stages: they are renamed to it when they are complete."""
        return _names_in(self.root / "stages")

    def has(self, digest: str, name: str) -> bool:
        """Return whether a stage has a file."""
        return (self.stage(digest) / name).is_file()

    def names(self, digest: str) -> frozenset[str]:
        """Return the names of the files of a stage."""
        return _names_in(self.stage(digest))

    def damage(self, digest: str, manifest: Mapping[str, Mapping[str, Any]]) -> Damage | None:
        """Return the first file that differs; files with the expected time are not hashed."""
        return damage(self.stage(digest), manifest)

    def publish(self, digest: str, draft: Path) -> bool:
        """Rename the folder."""
        stage = self.stage(digest)
        stage.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.rename(stage)
        except OSError:
            if self.has(digest, MANIFEST):
                shutil.rmtree(draft)
                return False
            if not stage.is_dir():
                raise
            # Another process added scores to the stage while it was set aside.
            self.set_aside(digest, f"damaged/{digest}-{uuid.uuid4().hex[:8]}")
            return self.publish(digest, draft)
        return True

    def withdraw(self, digest: str, target: Path) -> None:
        """Rename the folder of a stage."""
        move_folder(self.stage(digest), target)

    def upload(self, digest: str, *names: str) -> None:
        """Do nothing: files are written in place."""

    def remove(self, digest: str, name: str) -> None:
        """Remove a file of a stage."""
        (self.stage(digest) / name).unlink(missing_ok=True)

    def remove_folders(self, folders: Iterable[str]) -> None:
        """Remove folders; missing ones are ignored."""
        remove_folders(self.root / folder for folder in folders)

    def set_aside(self, digest: str, target: str) -> None:
        """Rename the folder of a stage."""
        move_folder(self.stage(digest), self.root / target)

    def set_files_aside(self, digest: str, target: str, names: Iterable[str]) -> None:
        """Rename files of a stage."""
        (self.root / target).mkdir(parents=True)
        for name in names:
            with suppress(FileNotFoundError):
                (self.stage(digest) / name).rename(self.root / target / name)

    def fetch(self, digest: str, name: str) -> Path:
        """Return the path of a file of a stage."""
        return self.stage(digest) / name

    def prefetch(self, files: Iterable[tuple[str, str]]) -> None:
        """Do nothing: files are read in place."""

    def refresh(self, digest: str) -> None:
        """Do nothing: nothing is cached."""

    def discard_copy(self, digest: str, name: str) -> bool:
        """Return False: there are no copies."""
        return False

    def checkpoint_copies(self, digest: str) -> CheckpointCopies:
        """Return copies that do nothing."""
        return CheckpointCopies()

    def pull_study(self, name: str) -> None:
        """Do nothing: studies are read in place."""

    def pull_studies(self, files: Collection[str]) -> None:
        """Do nothing: studies are read in place."""

    def uploading_study(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that does nothing."""
        return nullcontext()

    def lease(self, digest: str) -> AbstractContextManager[None]:
        """Lease the work folder of a stage."""
        return lease(self.work(digest))

    def is_leased(self, digest: str) -> bool:
        """Return whether a process has leased the work folder of a stage and is alive."""
        return is_leased(self.work(digest))

    def add_file(self, file: Path, key: str) -> None:
        """Copy a file atomically."""
        with atomic_path(self.root / key) as temporary:
            shutil.copyfile(file, temporary)

    def create_file(self, file: Path, key: str) -> None:
        """Copy a file to a path at which there is none, atomically where the file system has hard links."""
        target = self.root / key
        self.add_file(file, draft := f"{key}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            os.link(self.root / draft, target)
        except FileExistsError:
            return
        except OSError:  # no hard links here
            with suppress(FileExistsError), target.open("xb") as stream:
                stream.write(file.read_bytes())
        finally:
            (self.root / draft).unlink(missing_ok=True)

    def find_file(self, folder: str, suffix: str) -> Path | None:
        """Return a file of a folder with this suffix."""
        return next((self.root / folder).glob(f"*{suffix}"), None)

    def folder_sizes(self, places: Iterable[str]) -> dict[str, int]:
        """Return the bytes of each folder."""
        folders = [path for place in places for path in sorted((self.root / place).glob("*")) if path.is_dir()]
        return {path.relative_to(self.root).as_posix(): sum(map(_size, path.rglob("*"))) for path in folders}

    def writing_problem(self) -> str | None:
        """Return why one of the folders that a run writes to is not writable."""
        existing = [folder for name in FOLDERS if os.path.lexists(folder := self.root / name)]
        return next(filter(None, map(writing_problem, (self.root, *existing))), None)


def move_folder(folder: Path, target: Path) -> None:
    """Rename a folder if it exists."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        folder.rename(target)


def remove_folders(folders: Iterable[Path]) -> None:
    """Remove local folders; one that another process removed is ignored. Raises `OSError`."""
    for folder in folders:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 for a folder and for a file that was removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def _names_in(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
