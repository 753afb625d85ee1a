"""Checkpoints of running stages, as safetensors and JSON."""

import os
import re
import shutil
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
from study.store.backend import CheckpointCopies
from study.store.paths import CHECKPOINT_STATE

TENSORS = ".safetensors"
_FORM = Form(frozenset(), lambda value: {"stage", "numbers", "parts"} <= value.keys())


@dataclass(kw_only=True)
class Snapshot:
    """The complete training state after an epoch. Random states are not included: each epoch is seeded."""

    parts: Mapping[str, Mapping[str, Tensor]]
    """Named groups of tensors: weights and optimizer of each network, best weights so far, averaged weights."""
    numbers: dict[str, Any]
    """Epoch, updates, scores so far, states of optimizers and schedules, as JSON types."""


@dataclass(eq=False)
class Checkpoints:
    """Checkpoints of one attempt; resuming reads those of all attempts at the stage."""

    work: Path
    every: int = 1
    """Epochs between checkpoints."""
    pause: float = 0.0
    """Minimum seconds between checkpoints, so that short epochs do not write constantly."""
    labels: str | None = None
    """Hash of what predicted labels of the stage depend on; a checkpoint after other labels is not used."""
    copies: CheckpointCopies = field(default_factory=CheckpointCopies)
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _written: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        """Return the folder of this attempt."""
        return self.work / self.attempt

    def due(self, epoch: int) -> bool:
        """Return whether to write a checkpoint after this number of epochs."""
        return epoch % self.every == 0 and time.monotonic() - self._written >= self.pause

    def save(self, epoch: int, snapshot: Snapshot) -> None:
        """Write a checkpoint atomically; remove older ones, including those of earlier attempts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary, target = self.folder / "aside", self.folder / f"epoch-{epoch:06d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        with removed_on_error(temporary):
            for name, tensors in snapshot.parts.items():
                save_tensors(_to_contiguous_cpu(tensors), temporary / f"{name}{TENSORS}")
            hashes = {name: hash_of(temporary / f"{name}{TENSORS}") for name in snapshot.parts}
            state = {"stage": self.work.name, "numbers": snapshot.numbers, "parts": hashes}
            labels = {} if self.labels is None else {"labels": self.labels}
            write_signed(temporary / CHECKPOINT_STATE, state | labels)
        temporary.rename(target)
        needed = {target, self.copies.sending}
        for folder in self.work.glob("*/epoch-*"):
            if folder not in needed:
                shutil.rmtree(folder, ignore_errors=True)
        self._written = time.monotonic()
        self.copies.send(target)

    def latest(self) -> Snapshot | None:
        """Return the most advanced intact checkpoint of any attempt, None if there is none."""
        self.copies.fetch(self.work)
        folders = sorted(self.work.glob("*/epoch-*"), key=lambda folder: folder.name, reverse=True)
        for folder in folders:
            with suppress(OSError, AlteredFileError, SafetensorError):  # damaged or incomplete: try an older one
                state = read_signed(folder / CHECKPOINT_STATE, _FORM)
                if state is not None and state["stage"] == self.work.name and state.get("labels") == self.labels:
                    files = {name: folder / f"{name}{TENSORS}" for name in state["parts"]}
                    if all(hash_of(file) == state["parts"][name] for name, file in files.items()):
                        parts = {name: load_file(file) for name, file in files.items()}
                        return Snapshot(parts=parts, numbers=state["numbers"])
        return None


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a file with the default permissions of the umask. Raises `OSError` if writing fails."""
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path)  # safetensors makes files readable by the owner only
        path.chmod(mode)
    except SafetensorError as error:
        error_number = re.search(r"os error (\d+)", str(error))
        if error_number is None:
            raise
        raise OSError(int(error_number[1]), os.strerror(int(error_number[1])), str(path)) from error


@contextmanager
def removed_on_error(folder: Path) -> Iterator[None]:
    """Remove a folder if writing into it fails: incomplete files would waste disk space."""
    try:
        yield
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _to_contiguous_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
