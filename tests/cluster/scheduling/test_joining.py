"""Nodes that join and leave a cluster while a graph runs on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.connect import Capacity, connected
from cluster.nodes import AdmittedNodes
from cluster.protocol import QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.capacity import REFRESH_SECONDS, SPARE_STAGES, Slots
from cluster.scheduling.executor import execute
from tests.cluster.scheduling.test_executor import Log
from tests.support.command import Command
from tests.support.tiny import tiny, written

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ITEMS, SECONDS = 16, 2.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with headed(cpus=1) as cluster:
        yield cluster


@pytest.fixture
def empty() -> Iterator[Cluster]:
    with headed(cpus=0) as cluster:
        yield cluster


@contextmanager
def headed(cpus: int) -> Iterator[Cluster]:
    """Start a cluster of one head."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def capacity(cluster: Cluster) -> Iterator[Capacity]:
    with connected(cluster.address) as found:
        yield found


@dataclass(eq=False, kw_only=True)
class Growing(Log):
    """Adds a node with two processors once an item is done, and remembers how many ran at once."""

    cluster: Cluster
    running: int = 0
    most: int = 0
    at_first: int = 0

    def started(self, name: str) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        super().started(name)

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        self.running -= 1
        super().ended(name, outcome, again=again)
        if len(self.outcomes) == 1:
            self.at_first = self.most
            self.cluster.add_node(num_cpus=2)


def where(name: str, report: ReportFunction) -> StageOutcome:
    time.sleep(SECONDS)
    return StageOutcome(status="failed", detail=str(ray.get_runtime_context().get_node_id()))


def test_items_run_on_a_node_that_joins_and_no_more_than_fit_run_at_once(cluster: Cluster, capacity: Capacity) -> None:
    log = Growing(cluster=cluster)
    execute(
        [QueuedStage(id=str(number), retries=0) for number in range(ITEMS)],
        where,
        log,
        capacity=capacity,
        resources=StageResources(),
    )
    used = {outcome.detail for outcomes in log.outcomes.values() for outcome in outcomes}
    assert len(used) == 2
    assert (log.at_first, log.most) == (1, 3)


@dataclass(eq=False, kw_only=True)
class Stranded(Log):
    """Takes the only node that has processors away once an item is done, and adds another when told of it."""

    cluster: Cluster
    node: object

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        super().ended(name, outcome, again=again)
        if len(self.outcomes) == 1:
            self.cluster.remove_node(self.node)

    def stranded(self) -> None:
        super().stranded()
        self.cluster.add_node(num_cpus=1)


def test_where_no_node_is_left_it_is_told_once_and_goes_on_when_one_joins(empty: Cluster) -> None:
    node = empty.add_node(num_cpus=1)
    with connected(empty.address) as capacity:
        log = Stranded(cluster=empty, node=node)
        items = [QueuedStage(id=str(number), retries=0) for number in range(4)]
        execute(items, where, log, capacity=capacity, resources=StageResources())
    outcomes = [outcome for found in log.outcomes.values() for outcome in found]
    assert len({outcome.detail for outcome in outcomes if outcome.status == "failed"}) == 2
    assert {outcome.status for outcome in outcomes} <= {"failed", "lost"}
    assert log.told.count(("stranded", "")) == 1


def test_a_study_begins_on_a_cluster_without_processors_and_runs_where_one_joins(
    empty: Cluster, tmp_path: Path
) -> None:
    file = written(tiny({"stages.segment.steps": 2, "compare.pathway": ["none"]}), tmp_path)
    run = Command("run", file, "--storage", tmp_path / "runs", "--address", empty.address, temporary=tmp_path)
    run.until(lambda: "no node of the cluster has room for a stage now" in run.text)
    empty.add_node(num_cpus=1)
    assert run.wait() == 0, run.text


def blind() -> str:
    raise OSError("the disk is gone")


def test_a_node_that_joins_and_does_not_see_what_it_has_to_is_left_out(cluster: Cluster, capacity: Capacity) -> None:
    (first,) = (str(node["NodeID"]) for node in ray.nodes())
    log, items = Growing(cluster=cluster), [QueuedStage(id=str(number), retries=0) for number in range(ITEMS)]
    admission = AdmittedNodes(check=blind, passed=frozenset({first}))
    execute(items, where, log, capacity=capacity, resources=StageResources(), admission=admission)
    outcomes = [outcome for found in log.outcomes.values() for outcome in found]
    assert [outcome.detail for outcome in outcomes if outcome.status == "failed"] == ITEMS * [first]
    told = [outcome.detail for outcome in outcomes if outcome.status == "rejected" and outcome.detail]
    assert len(told) == 1
    assert told[0].endswith("is excluded: it cannot be checked: OSError: the disk is gone")


def test_slots_follow_the_nodes_but_for_those_left_out(cluster: Cluster, capacity: Capacity) -> None:
    first = cluster.add_node(num_cpus=4)
    second = cluster.add_node(num_cpus=2)
    out = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU") == 2]
    slots = Slots(StageResources(), capacity, out, spare=True)
    assert slots.max_running() == 5
    cluster.remove_node(first)
    time.sleep(REFRESH_SECONDS)
    assert slots.max_running() == 1
    cluster.remove_node(second)


@pytest.mark.usefixtures("cluster")
def test_more_items_than_fit_wait_only_where_a_node_may_join(capacity: Capacity) -> None:
    assert Slots(StageResources(), capacity, (), spare=True).max_submitted() == 1 + SPARE_STAGES
    assert Slots(StageResources(), replace(capacity, joined=False), (), spare=True).max_submitted() == 1
