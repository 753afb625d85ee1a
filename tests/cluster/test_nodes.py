"""Nodes that do not see what they have to, on a cluster of several nodes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.connect import Capacity, connected
from cluster.distribute import distribute
from cluster.execute import execute
from cluster.nodes import Admission, Node, checked
from cluster.queue import Item
from cluster.work import Outcome, Report, Share
from tests.cluster.test_execute import Log

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
    return checked(Check(), seconds=60)


def where(name: str, report: Report) -> Outcome:
    time.sleep(0.5)
    return Outcome(status="failed", detail=str(ray.get_runtime_context().get_node_id()))


def test_every_node_with_processors_is_asked(nodes: list[Node]) -> None:
    assert len({node.id for node in nodes}) == 4
    assert {node.fault for node in nodes} == {""}


def test_a_fault_is_told_of_the_node_that_has_it(nodes: list[Node]) -> None:
    blind, silent, broken, sound = (node.id for node in nodes)
    found = {node.id: node.fault for node in checked(Check((blind,), (silent,), (broken,)), seconds=15)}
    assert found[sound] == ""
    assert found[blind] == "sees nothing"
    assert found[silent] == "did not answer in 15 seconds"
    assert "the disk is gone" in found[broken]


def test_nodes_that_are_left_out_get_no_work(capacity: Capacity, nodes: list[Node]) -> None:
    out, log = [node.id for node in nodes[:2]], Log()
    items = [Item(id=str(number), retries=0) for number in range(8)]
    assert capacity.now(out).cpus == 2
    execute(items, where, log, capacity=capacity, share=Share(), admission=Admission(without=frozenset(out)))
    used = {outcome.detail for outcomes in log.outcomes.values() for outcome in outcomes}
    assert used == {node.id for node in nodes[2:]}


@dataclass(frozen=True)
class Place:
    """Writes down the node of each process that trains."""

    folder: Path

    def __call__(self, rank: int, world: int, report: Report) -> None:
        (self.folder / str(rank)).write_text(str(ray.get_runtime_context().get_node_id()))


@pytest.mark.usefixtures("capacity")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Train imports Ray Data, which warns of itself
def test_workers_of_one_item_leave_a_node_that_turns_out_at_fault(nodes: list[Node], tmp_path: Path) -> None:
    blind = [node.id for node in nodes[:2]]
    distribute(
        Place(tmp_path), lambda _: None, share=Share(workers=2), admission=Admission(check=Check(tuple(blind))),
        name="train", scratch=str(tmp_path / "scratch"),
    )  # fmt: skip
    assert {(tmp_path / rank).read_text() for rank in "01"} == {node.id for node in nodes[2:]}
