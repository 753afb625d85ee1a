"""Nodes that join or leave the cluster while a graph runs."""

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
from tests.support.cluster_stages import RecordingListener
from tests.support.command import Command
from tests.support.tiny import tiny, written

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
STAGES, SECONDS = 16, 2.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with start_cluster(cpus=1) as cluster:
        yield cluster


@pytest.fixture
def empty_cluster() -> Iterator[Cluster]:
    with start_cluster(cpus=0) as cluster:
        yield cluster


@contextmanager
def start_cluster(cpus: int) -> Iterator[Cluster]:
    """Start a cluster that consists of a head node."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def capacity(cluster: Cluster) -> Iterator[Capacity]:
    with connected(cluster.address) as capacity:
        yield capacity


@dataclass(eq=False, kw_only=True)
class AddNodeListener(RecordingListener):
    """Adds a node with two CPU cores after the first stage ended, and records how many stages ran concurrently."""

    cluster: Cluster
    running: int = 0
    max_running: int = 0
    max_running_before: int = 0

    def started(self, name: str) -> None:
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        super().started(name)

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        self.running -= 1
        super().ended(name, outcome, again=again)
        if len(self.outcomes) == 1:
            self.max_running_before = self.max_running
            self.cluster.add_node(num_cpus=2)


def return_node_id(name: str, report: ReportFunction) -> StageOutcome:
    time.sleep(SECONDS)
    return StageOutcome(status="failed", detail=str(ray.get_runtime_context().get_node_id()))


def test_stages_run_on_a_joined_node_within_the_capacity(cluster: Cluster, capacity: Capacity) -> None:
    listener = AddNodeListener(cluster=cluster)
    execute(
        [QueuedStage(id=str(number), retries=0) for number in range(STAGES)],
        return_node_id,
        listener,
        capacity=capacity,
        resources=StageResources(),
    )
    node_ids = {outcome.detail for outcomes in listener.outcomes.values() for outcome in outcomes}
    assert len(node_ids) == 2
    assert (listener.max_running_before, listener.max_running) == (1, 3)


@dataclass(eq=False, kw_only=True)
class ReplaceNodeListener(RecordingListener):
    """Removes the only node with CPU cores after the first stage ended, and adds another when no node is left."""

    cluster: Cluster
    node: object

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        super().ended(name, outcome, again=again)
        if len(self.outcomes) == 1:
            self.cluster.remove_node(self.node)

    def stranded(self) -> None:
        super().stranded()
        self.cluster.add_node(num_cpus=1)


def test_run_without_nodes_is_reported_once_and_continues_when_one_joins(empty_cluster: Cluster) -> None:
    node = empty_cluster.add_node(num_cpus=1)
    with connected(empty_cluster.address) as capacity:
        listener = ReplaceNodeListener(cluster=empty_cluster, node=node)
        stages = [QueuedStage(id=str(number), retries=0) for number in range(4)]
        execute(stages, return_node_id, listener, capacity=capacity, resources=StageResources())
    outcomes = [outcome for attempts in listener.outcomes.values() for outcome in attempts]
    assert len({outcome.detail for outcome in outcomes if outcome.status == "failed"}) == 2
    assert {outcome.status for outcome in outcomes} <= {"failed", "lost"}
    assert listener.events.count(("stranded", "")) == 1


def test_study_on_a_cluster_without_cpus_starts_when_a_node_joins(empty_cluster: Cluster, tmp_path: Path) -> None:
    file = written(tiny({"stages.segment.steps": 2, "compare.pathway": ["none"]}), tmp_path)
    run = Command("run", file, "--storage", tmp_path / "runs", "--address", empty_cluster.address, temporary=tmp_path)
    run.until(lambda: "no node of the cluster has room for a stage now" in run.text)
    empty_cluster.add_node(num_cpus=1)
    assert run.wait() == 0, run.text


def failing_check() -> str:
    raise OSError("the disk is gone")


def test_joined_node_that_fails_the_check_is_excluded(cluster: Cluster, capacity: Capacity) -> None:
    (first,) = (str(node["NodeID"]) for node in ray.nodes())
    listener = AddNodeListener(cluster=cluster)
    stages = [QueuedStage(id=str(number), retries=0) for number in range(STAGES)]
    admission = AdmittedNodes(check=failing_check, passed=frozenset({first}))
    execute(stages, return_node_id, listener, capacity=capacity, resources=StageResources(), admission=admission)
    outcomes = [outcome for attempts in listener.outcomes.values() for outcome in attempts]
    assert [outcome.detail for outcome in outcomes if outcome.status == "failed"] == STAGES * [first]
    messages = [outcome.detail for outcome in outcomes if outcome.status == "rejected" and outcome.detail]
    assert len(messages) == 1
    assert messages[0].endswith("is excluded: it cannot be checked: OSError: the disk is gone")


def test_slots_follow_the_nodes_that_are_not_excluded(cluster: Cluster, capacity: Capacity) -> None:
    first = cluster.add_node(num_cpus=4)
    second = cluster.add_node(num_cpus=2)
    excluded = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU") == 2]
    slots = Slots(StageResources(), capacity, excluded, spare=True)
    assert slots.max_running() == 5
    cluster.remove_node(first)
    time.sleep(REFRESH_SECONDS)
    assert slots.max_running() == 1
    cluster.remove_node(second)


@pytest.mark.usefixtures("cluster")
def test_spare_stages_are_submitted_only_where_a_node_may_join(capacity: Capacity) -> None:
    assert Slots(StageResources(), capacity, (), spare=True).max_submitted() == 1 + SPARE_STAGES
    assert Slots(StageResources(), replace(capacity, joined=False), (), spare=True).max_submitted() == 1
