"""Run stages in the process of a test."""

from pathlib import Path

from study.config.schema import Checkpoint
from study.training.job import RuntimeContext


def ignore(_: object) -> None:
    """Ignore a report."""


def runtime(storage: Path, cache: Path) -> RuntimeContext:
    """Return the context of a stage on one core, with a checkpoint after each epoch."""
    return RuntimeContext(storage=storage, cache=cache, cpus=1, checkpoint=Checkpoint(epochs=1, seconds=0))
