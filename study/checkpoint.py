"""Where a running stage can be resumed: after an epoch, as safetensors and JSON."""

import json
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from study.files import read_json

STATE = "state.json"
TENSORS = ".safetensors"


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
        for name, tensors in snapshot.parts.items():
            save_file(_plain(tensors), aside / f"{name}{TENSORS}")
        numbers = snapshot.numbers | {"parts": list(snapshot.parts)}  # so that a lost file is noticed
        (aside / STATE).write_text(json.dumps(numbers), encoding="utf-8")
        aside.rename(place)
        for old in self.work.glob("*/epoch-*"):
            if old != place:
                shutil.rmtree(old, ignore_errors=True)
        self._written = time.monotonic()

    def latest(self) -> Snapshot | None:
        """Read the most advanced readable checkpoint of any attempt."""
        found = sorted(self.work.glob("*/epoch-*"), key=lambda folder: folder.name, reverse=True)
        for folder in found:
            try:
                parts = {file.name.removesuffix(TENSORS): load_file(file) for file in folder.glob(f"*{TENSORS}")}
                numbers = read_json(folder / STATE)
            except (OSError, ValueError, SafetensorError):  # cut off by a dying disk or node: an older one may do
                continue
            if isinstance(numbers, dict) and set(numbers.pop("parts", ())) == parts.keys():
                return Snapshot(parts=parts, numbers=numbers)
        return None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
