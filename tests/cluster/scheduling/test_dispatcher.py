"""Assignment of stages to trials while nodes join and leave, without Ray."""

from dataclasses import dataclass, field, replace

import pytest

from cluster.connect import Capacity
from cluster.nodes import AdmittedNodes, Node
from cluster.protocol import MAX_LOSSES, QueuedStage, StageOutcome, StageResources
from cluster.scheduling.capacity import Slots
from cluster.scheduling.dispatcher import StageDispatcher
from cluster.scheduling.stage_queue import StageQueue
from tests.support.cluster_stages import RecordingListener

Nodes = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class ChangingCapacity(Capacity):
    """A cluster whose nodes (CPU cores, GPUs) are set by the test."""

    current: Nodes = field(default_factory=list)

    def refreshed(self, without: object = ()) -> Capacity:
        return replace(self, nodes=tuple(self.current))


@pytest.mark.parametrize(
    ("resources", "small", "large"),
    [
        (StageResources(), [], [(1.0, 0.0)]),
        (StageResources(), [(0.0, 0.0)], [(0.0, 0.0), (4.0, 0.0)]),
        (StageResources(cpus=8), [(4.0, 0.0), (4.0, 0.0)], [(8.0, 0.0)]),
        (StageResources(gpus=1.0), [(16.0, 0.0)], [(16.0, 0.0), (4.0, 1.0)]),
        (StageResources(cpus=2, workers=2), [(1.0, 0.0)] * 4, [(2.0, 0.0)]),
    ],
)
def test_missing_capacity_is_reported_once_each_time_it_occurs(
    resources: StageResources, small: Nodes, large: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.scheduling.capacity.REFRESH_SECONDS", 0.0)
    current = list(large)
    slots = Slots(resources, ChangingCapacity(cpus=1, gpus=0, joined=True, current=current), (), spare=True)
    listener = RecordingListener()
    dispatcher = StageDispatcher(StageQueue([QueuedStage(id="a")]), listener, slots, resources)
    for nodes, calls in ((large, 0), (small, 1), (small, 1), (large, 1), (small, 2)):
        current[:] = nodes
        dispatcher.check_capacity()
        assert listener.events.count(("stranded", "")) == calls


def test_local_cluster_does_not_wait_for_nodes() -> None:
    assert not Slots(StageResources(cpus=8), Capacity(cpus=1, gpus=0), (), spare=True).none_fits(StageResources(cpus=8))


def test_stage_whose_process_is_lost_before_its_work_starts_is_retried() -> None:
    listener = RecordingListener()
    slots = Slots(StageResources(), Capacity(cpus=1, gpus=0), (), spare=False)
    dispatcher = StageDispatcher(StageQueue([QueuedStage(id="a")]), listener, slots, StageResources())
    for number in range(MAX_LOSSES + 1):
        assert dispatcher.assign(str(number)) is not None
        dispatcher.ended(str(number), None)
    assert [outcome.status for outcome in listener.outcomes["a"]] == MAX_LOSSES * ["lost"] + ["failed"]
    assert dispatcher.queue.failed == {"a": f"its process was lost {MAX_LOSSES + 1} times"}


def two_stages(listener: RecordingListener) -> StageDispatcher:
    slots = Slots(StageResources(), Capacity(cpus=2, gpus=0), (), spare=False)
    queue = StageQueue([QueuedStage(id="a"), QueuedStage(id="b")])
    return StageDispatcher(queue, listener, slots, StageResources())


def reject(dispatcher: StageDispatcher, trial: str, node: str) -> None:
    dispatcher.ended(trial, StageOutcome(status="rejected", detail=f"{node} is left out", nodes=(node,)))


def test_rejected_node_is_excluded_from_later_trials_and_reported_once() -> None:
    listener = RecordingListener()
    dispatcher = two_stages(listener)
    for trial in ("1", "2"):
        config = dispatcher.assign(trial)
        assert config is not None
        assert config["excluded_nodes"] == []
    for trial in ("1", "2"):
        reject(dispatcher, trial, "faulty")
    config = dispatcher.assign("3")
    assert config is not None
    assert config["excluded_nodes"] == ["faulty"]
    assert sorted(outcome.detail for outcomes in listener.outcomes.values() for outcome in outcomes) == [
        "",
        "faulty is left out",
    ]
    assert not dispatcher.queue.finished


def test_stage_that_is_rejected_too_often_fails() -> None:
    listener = RecordingListener()
    dispatcher = two_stages(listener)
    for number in range(2 * (MAX_LOSSES + 1)):
        assert dispatcher.assign(str(number)) is not None
        reject(dispatcher, str(number), f"node {number}")
    assert dispatcher.queue.finished
    for outcomes in listener.outcomes.values():
        assert [outcome.status for outcome in outcomes] == MAX_LOSSES * ["rejected"] + ["failed"]
    assert dispatcher.assign("late") is None


def test_nodes_are_excluded_by_id_and_reported_by_name() -> None:
    assert AdmittedNodes(check=None).selector is None
    assert AdmittedNodes(excluded=frozenset("ba")).excluding(["c"]).selector == {"ray.io/node-id": "!in(a,b,c)"}
    assert Node(id="x", name="10.0.0.3", fault="sees nothing").text == "node 10.0.0.3 is excluded: it sees nothing"
