"""Run stages in the process of a test."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from study.config.schema import Checkpoint
from study.training.job import RuntimeContext, StageJob
from study.training.loader import WorkerContext
from study.training.train_stage import run_stage


def ignore(_: object) -> None:
    """Ignore a report."""


def runtime(storage: Path, cache: Path) -> RuntimeContext:
    """Return the context of a stage on one core, with a checkpoint after each epoch."""
    return RuntimeContext(storage=storage, cache=cache, cpus=1, checkpoint=Checkpoint(epochs=1, seconds=0))


def interrupt(job: StageJob, context: RuntimeContext) -> None:
    """Train a stage, which is interrupted at the end of its second epoch."""

    def stop(scores: Mapping[str, float]) -> None:
        if scores["epoch"] > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(job, context, WorkerContext(report=stop))
