"""Nodes that do not see what they have to, on a cluster of several nodes."""

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
from tests.cluster.scheduling.test_executor import Log

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Check:
    """Nothing is wrong with the nodes but with those that are named."""

    blind: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    def __call__(self) -> str:
        mine = ray.get_runtime_context().get_node_id()
        if mine in self.silent:
            time.sleep(600)
        if mine in self.broken:
            raise OSError("the disk is gone")
        return "sees nothing" if mine in self.blind else ""


@pytest.fixture(scope="module")
def capacity() -> Iterator[Capacity]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        with connected(cluster.address) as found:
            yield found
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(capacity: Capacity) -> list[Node]:
    return check_nodes(Check(), seconds=60)


def where(name: str, report: ReportFunction) -> StageOutcome:
    time.sleep(0.5)
    return StageOutcome(status="failed", detail=str(ray.get_runtime_context().get_node_id()))


def test_every_node_with_processors_is_asked(nodes: list[Node]) -> None:
    assert len({node.id for node in nodes}) == 4
    assert {node.fault for node in nodes} == {""}


def test_a_fault_is_told_of_the_node_that_has_it(nodes: list[Node]) -> None:
    blind, silent, broken, sound = (node.id for node in nodes)
    found = {node.id: node.fault for node in check_nodes(Check((blind,), (silent,), (broken,)), seconds=15)}
    assert found[sound] == ""
    assert found[blind] == "sees nothing"
    assert found[silent] == "did not answer in 15 seconds"
    assert "the disk is gone" in found[broken]


def test_nodes_that_are_left_out_get_no_work(capacity: Capacity, nodes: list[Node]) -> None:
    out, log = [node.id for node in nodes[:2]], Log()
    items = [QueuedStage(id=str(number), retries=0) for number in range(8)]
    assert capacity.refreshed(out).cpus == 2
    execute(
        items,
        where,
        log,
        capacity=capacity,
        resources=StageResources(),
        admission=AdmittedNodes(excluded=frozenset(out)),
    )
    used = {outcome.detail for outcomes in log.outcomes.values() for outcome in outcomes}
    assert used == {node.id for node in nodes[2:]}


@dataclass(frozen=True)
class Place:
    """Writes down the node of each of the processes that share an item."""

    folder: Path

    def __call__(self, rank: int, world: int, report: ReportFunction) -> None:
        (self.folder / str(rank)).write_text(str(ray.get_runtime_context().get_node_id()))


@dataclass(frozen=True)
class DistributeFunction:
    """Shares an item among two workers, as a stage does."""

    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        try:
            run_on_workers(
                Place(self.folder), report, resources=StageResources(workers=2), admission=current_admission(),
                name="train", scratch=str(self.folder / "scratch"),
            )  # fmt: skip
        except NodesRejected as met:
            return StageOutcome(status="rejected", detail=str(met), nodes=tuple(node.id for node in met.nodes))
        return StageOutcome(status="done")


def test_workers_of_one_item_leave_nodes_that_turn_out_at_fault(
    capacity: Capacity, nodes: list[Node], tmp_path: Path
) -> None:
    blind, log = tuple(node.id for node in nodes[:2]), Log()
    execute(
        [QueuedStage(id="shared")], DistributeFunction(tmp_path), log, capacity=capacity,
        resources=StageResources(workers=2), admission=AdmittedNodes(check=Check(blind)),
    )  # fmt: skip
    *unfit, last = log.outcomes["shared"]
    assert last.status == "done"
    assert {outcome.status for outcome in unfit} == {"rejected"}
    assert {node for outcome in unfit for node in outcome.nodes} <= set(blind)
    assert {(tmp_path / rank).read_text() for rank in "01"} == {node.id for node in nodes[2:]}
