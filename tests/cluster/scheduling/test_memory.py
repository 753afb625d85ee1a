"""A node that runs out of memory: Ray kills the worker process that allocated last."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster.connect import connected
from cluster.local_cluster import LocalCluster
from cluster.protocol import QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.executor import execute
from tests.support.cluster_stages import RecordingListener

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
HEADROOM, STEP, MAX_ALLOCATED = 2**30, 2**28, 2**33
"""Bytes below the threshold when the cluster starts, allocated per step, and allocated at most by a stage.

The stage allocates more than the headroom because earlier tests may free memory in the meantime.
"""


@dataclass(frozen=True)
class MemoryHog:
    """Exceeds the memory threshold on the first attempt."""

    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        attempted = self.folder / name
        if not attempted.exists():
            attempted.touch()
            allocated = []
            while len(allocated) < MAX_ALLOCATED // STEP:
                allocated.append(b"1" * STEP)
                time.sleep(0.5)  # Ray checks the memory four times a second
        return StageOutcome(status="done")


def test_stage_killed_for_memory_is_retried_and_the_reason_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + HEADROOM) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")
    listener = RecordingListener()
    with connected(LocalCluster()) as capacity:
        queue = execute(
            [QueuedStage(id="memory hog")], MemoryHog(tmp_path), listener, capacity=capacity, resources=StageResources()
        )
    assert queue.done == {"memory hog"}
    assert listener.loss_reasons == ["the memory of its node was short"]
