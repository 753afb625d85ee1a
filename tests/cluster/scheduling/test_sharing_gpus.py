"""Items with shares of a GPU, on a cluster that says it has one."""

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
class Stay:
    """Takes a second, and leaves when it began."""

    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        (self.folder / name).write_text(str(time.time()))
        time.sleep(SECONDS)
        return StageOutcome(status="done")


@pytest.fixture(scope="module")
def capacity() -> Iterator[Capacity]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1})
    try:
        with connected(cluster.address) as found:
            yield found
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def begun(capacity: Capacity, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """When each item began: a whole one, two halves after it, two whole ones after those."""
    folder = tmp_path_factory.mktemp("begun")
    halves, wholes = ("half 1", "half 2"), ("whole 1", "whole 2")
    items = [
        QueuedStage(id="first"),
        *(QueuedStage(id=name, needs=("first",)) for name in halves),
        *(QueuedStage(id=name, needs=halves) for name in wholes),
    ]
    queue = execute(
        items, Stay(folder), Listener(), capacity=capacity, resources=StageResources(gpus=1.0),
        gpus=lambda name: 0.5 if name in halves else 1.0,
    )  # fmt: skip
    assert len(queue.done) == len(items)
    return {path.name: float(path.read_text()) for path in folder.iterdir()}


def test_two_items_of_half_a_gpu_run_side_by_side(begun: dict[str, float]) -> None:
    assert abs(begun["half 1"] - begun["half 2"]) < SECONDS


def test_two_items_of_a_whole_gpu_run_one_after_the_other(begun: dict[str, float]) -> None:
    assert abs(begun["whole 1"] - begun["whole 2"]) >= SECONDS
