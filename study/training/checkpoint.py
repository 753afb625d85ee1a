"""Where a running stage can be resumed: after an epoch, as safetensors and JSON."""

import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from study.store.atomic import AlteredFileError, Form, hash_of, read_signed, write_signed
from study.store.object_store import Entry, Remote, grouped

STATE = "state.json"
TENSORS = ".safetensors"
_FORM = Form(frozenset(), lambda value: {"stage", "numbers", "parts"} <= value.keys())


@dataclass(kw_only=True)
class Snapshot:
    """All that the next epoch depends on. Random states are not here: each epoch seeds its own."""

    parts: Mapping[str, Mapping[str, Tensor]]
    """Named groups of tensors: weights and optimizer of each player, best weights so far, averaged ones."""
    numbers: dict[str, Any]
    """Epoch, updates, scores so far, settings of optimizers and schedules: JSON's own types."""


@dataclass(eq=False)
class Checkpoints:
    """Checkpoints of one attempt; resuming looks at those of every attempt of the stage."""

    work: Path
    every: int = 1
    """Epochs between checkpoints."""
    pause: float = 0.0
    """Seconds that must have passed since the last one; keeps short epochs from writing all the time."""
    copies: "Copies | None" = None
    """Where the work folder is a mirror's."""
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _written: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        """Return this attempt's own folder."""
        return self.work / self.attempt

    def due(self, epoch: int) -> bool:
        """Return whether a checkpoint is to be written after this many epochs."""
        return epoch % self.every == 0 and time.monotonic() - self._written >= self.pause

    def save(self, epoch: int, snapshot: Snapshot) -> None:
        """Write a checkpoint aside, rename it into place, remove those before, of earlier attempts too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside, place = self.folder / "aside", self.folder / f"epoch-{epoch:06d}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        with removed_if_refused(aside):
            for name, tensors in snapshot.parts.items():
                save_tensors(_plain(tensors), aside / f"{name}{TENSORS}")
            hashes = {name: hash_of(aside / f"{name}{TENSORS}") for name in snapshot.parts}
            write_signed(aside / STATE, {"stage": self.work.name, "numbers": snapshot.numbers, "parts": hashes})
        aside.rename(place)
        kept = {place, None if self.copies is None else self.copies.sending}
        for old in self.work.glob("*/epoch-*"):
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)
        self._written = time.monotonic()
        if self.copies is not None:
            self.copies.send(place)

    def latest(self) -> Snapshot | None:
        """Read the most advanced checkpoint of any attempt that is as it was written."""
        if self.copies is not None:
            self.copies.fetch(self.work)
        found = sorted(self.work.glob("*/epoch-*"), key=lambda folder: folder.name, reverse=True)
        for folder in found:
            with suppress(OSError, AlteredFileError, SafetensorError):  # damaged or cut off: an older one may do
                state = read_signed(folder / STATE, _FORM)
                if state is not None and state["stage"] == self.work.name:
                    files = {name: folder / f"{name}{TENSORS}" for name in state["parts"]}
                    if all(hash_of(file) == state["parts"][name] for name, file in files.items()):
                        parts = {name: load_file(file) for name, file in files.items()}
                        return Snapshot(parts=parts, numbers=state["numbers"])
        return None


class Copies:
    """The last checkpoint of a stage in a storage elsewhere, for an attempt on another machine.

    It goes there while training goes on, as well as may be: one that cannot be sent is not missed.
    """

    def __init__(self, remote: Remote, digest: str) -> None:
        self._remote, self._folder = remote.hasty(), f"work/{digest}"
        self._thread = threading.Thread()
        self.sending: Path | None = None
        """A checkpoint on its way, which may take longer than the next one to come; not to be removed."""

    def send(self, place: Path) -> None:
        """Begin to store a checkpoint, unless one before it is still on its way."""
        if not self._thread.is_alive():
            self.sending = place
            self._thread = threading.Thread(target=self._send, args=(place,), name="checkpoint", daemon=True)
            self._thread.start()

    def settle(self) -> None:
        """Wait for what is on its way."""
        if self._thread.is_alive():
            self._thread.join()

    def fetch(self, work: Path) -> None:
        """Fetch the most advanced checkpoint, unless one as advanced is here."""
        with suppress(OSError):
            there = self._whole()
            newest = max(there, key=lambda folder: folder.rpartition("/")[2], default="")
            here = max((path.name for path in work.glob("*/epoch-*")), default="")
            attempt, _, name = newest.removeprefix(f"{self._folder}/").partition("/")
            if name > here:
                aside = work / attempt / "aside"
                for file in there[newest]:
                    self._remote.get(f"{newest}/{file}", aside / file)
                aside.rename(work / attempt / name)

    def _send(self, place: Path) -> None:
        with suppress(OSError):
            sent = f"{self._folder}/{place.parent.name}/{place.name}"
            for file in sorted(place.iterdir(), key=lambda file: file.name == STATE):
                self._remote.put(file, f"{sent}/{file.name}")
            for folder in self._whole().keys() - {sent}:
                self._remote.delete_folder(folder)
        self.sending = None

    def _whole(self) -> dict[str, dict[str, Entry]]:
        """Return the files of the stored checkpoints whose last file has arrived."""
        folders = grouped(self._remote.entries(self._folder), 4)
        return {folder: files for folder, files in folders.items() if STATE in files}


def save_tensors(tensors: Mapping[str, Tensor], place: Path) -> None:
    """Write tensors to a file that others may read as the umask says.

    Raises `OSError`, which the library wraps, where the disk refuses.
    """
    place.touch()
    mode = place.stat().st_mode
    try:
        save_file(dict(tensors), place)  # by itself it lets nobody but the owner read
        place.chmod(mode)
    except SafetensorError as error:
        told = re.search(r"os error (\d+)", str(error))
        if told is None:
            raise
        raise OSError(int(told[1]), os.strerror(int(told[1])), str(place)) from error


@contextmanager
def removed_if_refused(folder: Path) -> Iterator[None]:
    """Remove a folder where writing into it fails: what is half written takes room that is lacking."""
    try:
        yield
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
