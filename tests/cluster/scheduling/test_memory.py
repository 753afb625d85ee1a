"""A node whose memory runs short: Ray ends the process that took it last."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster.connect import connected
from cluster.local_cluster import LocalCluster
from cluster.protocol import QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.executor import execute
from tests.cluster.scheduling.test_executor import Log

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ROOM, STEP, MOST = 2**30, 2**28, 2**33
"""That is left when the cluster starts, and what an item takes, step by step: tests before may free some meanwhile."""


@dataclass(frozen=True)
class Hungry:
    """Takes more than there is the first time."""

    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        first = self.folder / name
        if not first.exists():
            first.touch()
            taken = []
            while len(taken) < MOST // STEP:
                taken.append(b"1" * STEP)
                time.sleep(0.5)  # Ray looks four times a second
        return StageOutcome(status="done")


def test_an_item_ended_for_memory_is_handed_out_again_and_the_reason_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + ROOM) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")
    log = Log()
    with connected(LocalCluster()) as capacity:
        queue = execute(
            [QueuedStage(id="hungry")], Hungry(tmp_path), log, capacity=capacity, resources=StageResources()
        )
    assert queue.done == {"hungry"}
    assert log.whys == ["the memory of its node was short"]
