"""Stages with fractions of a GPU, on a cluster that is declared to have one GPU."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from cluster.connect import Capacity, connected
from cluster.protocol import Listener, QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.executor import execute

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SECONDS = 1.0


@dataclass(frozen=True)
class RecordStart:
    """Writes down its start time and runs for a second."""

    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        (self.folder / name).write_text(str(time.time()))
        time.sleep(SECONDS)
        return StageOutcome(status="done")


@pytest.fixture(scope="module")
def capacity() -> Iterator[Capacity]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1})
    try:
        with connected(cluster.address) as capacity:
            yield capacity
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def start_times(capacity: Capacity, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Start times of a stage with a whole GPU, then two stages with half a GPU, then two with a whole GPU."""
    folder = tmp_path_factory.mktemp("start_times")
    halves, wholes = ("half 1", "half 2"), ("whole 1", "whole 2")
    stages = [
        QueuedStage(id="first"),
        *(QueuedStage(id=name, needs=("first",)) for name in halves),
        *(QueuedStage(id=name, needs=halves) for name in wholes),
    ]
    queue = execute(
        stages, RecordStart(folder), Listener(), capacity=capacity, resources=StageResources(gpus=1.0),
        gpus=lambda name: 0.5 if name in halves else 1.0,
    )  # fmt: skip
    assert len(queue.done) == len(stages)
    return {path.name: float(path.read_text()) for path in folder.iterdir()}


def test_stages_with_half_a_gpu_run_concurrently(start_times: dict[str, float]) -> None:
    assert abs(start_times["half 1"] - start_times["half 2"]) < SECONDS


def test_stages_with_a_whole_gpu_run_sequentially(start_times: dict[str, float]) -> None:
    assert abs(start_times["whole 1"] - start_times["whole 2"]) >= SECONDS
