"""Checks of nodes, and the exclusion of those that fail, on a cluster of several nodes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.connect import Capacity, connected
from cluster.nodes import AdmittedNodes, Node, NodesRejected, check_nodes, current_admission
from cluster.protocol import QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.executor import execute
from cluster.scheduling.multi_worker import run_on_workers
from tests.support.cluster_stages import RecordingListener

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Check:
    """A check that all nodes pass except those listed by id."""

    failing: tuple[str, ...] = ()
    unresponsive: tuple[str, ...] = ()
    raising: tuple[str, ...] = ()

    def __call__(self) -> str:
        node_id = ray.get_runtime_context().get_node_id()
        if node_id in self.unresponsive:
            time.sleep(600)
        if node_id in self.raising:
            raise OSError("the disk is gone")
        return "data is missing" if node_id in self.failing else ""


@pytest.fixture(scope="module")
def capacity() -> Iterator[Capacity]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        with connected(cluster.address) as capacity:
            yield capacity
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(capacity: Capacity) -> list[Node]:
    return check_nodes(Check(), seconds=60)


def return_node_id(name: str, report: ReportFunction) -> StageOutcome:
    time.sleep(0.5)
    return StageOutcome(status="failed", detail=str(ray.get_runtime_context().get_node_id()))


def test_every_node_with_cpus_is_checked(nodes: list[Node]) -> None:
    assert len({node.id for node in nodes}) == 4
    assert {node.fault for node in nodes} == {""}


def test_faults_are_reported_by_node(nodes: list[Node]) -> None:
    failing, unresponsive, raising, healthy = (node.id for node in nodes)
    faults = {node.id: node.fault for node in check_nodes(Check((failing,), (unresponsive,), (raising,)), seconds=15)}
    assert faults[healthy] == ""
    assert faults[failing] == "data is missing"
    assert faults[unresponsive] == "did not answer in 15 seconds"
    assert "the disk is gone" in faults[raising]


def test_excluded_nodes_get_no_stages(capacity: Capacity, nodes: list[Node]) -> None:
    excluded, listener = [node.id for node in nodes[:2]], RecordingListener()
    stages = [QueuedStage(id=str(number), retries=0) for number in range(8)]
    assert capacity.refreshed(excluded).cpus == 2
    execute(
        stages,
        return_node_id,
        listener,
        capacity=capacity,
        resources=StageResources(),
        admission=AdmittedNodes(excluded=frozenset(excluded)),
    )
    node_ids = {outcome.detail for outcomes in listener.outcomes.values() for outcome in outcomes}
    assert node_ids == {node.id for node in nodes[2:]}


@dataclass(frozen=True)
class RecordNode:
    """Records the node of each worker of a stage."""

    folder: Path

    def __call__(self, rank: int, world: int, report: ReportFunction) -> None:
        (self.folder / str(rank)).write_text(str(ray.get_runtime_context().get_node_id()))


@dataclass(frozen=True)
class DistributedWork:
    """Runs a stage on two workers."""

    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        try:
            run_on_workers(
                RecordNode(self.folder), report, resources=StageResources(workers=2), admission=current_admission(),
                name="train", scratch=str(self.folder / "scratch"),
            )  # fmt: skip
        except NodesRejected as error:
            return StageOutcome(status="rejected", detail=str(error), nodes=tuple(node.id for node in error.nodes))
        return StageOutcome(status="done")


def test_workers_of_a_stage_move_away_from_failing_nodes(capacity: Capacity, nodes: list[Node], tmp_path: Path) -> None:
    failing, listener = tuple(node.id for node in nodes[:2]), RecordingListener()
    execute(
        [QueuedStage(id="shared")], DistributedWork(tmp_path), listener, capacity=capacity,
        resources=StageResources(workers=2), admission=AdmittedNodes(check=Check(failing)),
    )  # fmt: skip
    *rejected, last = listener.outcomes["shared"]
    assert last.status == "done"
    assert {outcome.status for outcome in rejected} == {"rejected"}
    assert {node for outcome in rejected for node in outcome.nodes} <= set(failing)
    assert {(tmp_path / rank).read_text() for rank in "01"} == {node.id for node in nodes[2:]}
