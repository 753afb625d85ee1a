"""Stages, trials and nodes that join and leave, without Ray."""

from dataclasses import dataclass, field, replace

import pytest

from cluster.connect import Capacity
from cluster.nodes import AdmittedNodes, Node
from cluster.protocol import MAX_LOSSES, QueuedStage, StageOutcome, StageResources
from cluster.scheduling.capacity import Slots
from cluster.scheduling.dispatcher import StageDispatcher
from cluster.scheduling.stage_queue import StageQueue
from tests.cluster.scheduling.test_executor import Log

Nodes = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Changing(Capacity):
    """A cluster that has the nodes (processors, GPUs) which a test says."""

    there: Nodes = field(default_factory=list)

    def refreshed(self, without: object = ()) -> Capacity:
        return replace(self, nodes=tuple(self.there))


@pytest.mark.parametrize(
    ("share", "small", "large"),
    [
        (StageResources(), [], [(1.0, 0.0)]),
        (StageResources(), [(0.0, 0.0)], [(0.0, 0.0), (4.0, 0.0)]),
        (StageResources(cpus=8), [(4.0, 0.0), (4.0, 0.0)], [(8.0, 0.0)]),
        (StageResources(gpus=1.0), [(16.0, 0.0)], [(16.0, 0.0), (4.0, 1.0)]),
        (StageResources(cpus=2, workers=2), [(1.0, 0.0)] * 4, [(2.0, 0.0)]),
    ],
)
def test_it_is_told_once_each_time_that_no_node_has_room(
    share: StageResources, small: Nodes, large: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.scheduling.capacity.REFRESH_SECONDS", 0.0)
    there = list(large)
    slots = Slots(share, Changing(cpus=1, gpus=0, joined=True, there=there), (), spare=True)
    log = Log()
    dispatcher = StageDispatcher(StageQueue([QueuedStage(id="a")]), log, slots, share)
    for nodes, times in ((large, 0), (small, 1), (small, 1), (large, 1), (small, 2)):
        there[:] = nodes
        dispatcher.check_capacity()
        assert log.told.count(("stranded", "")) == times


def test_a_machine_of_its_own_waits_for_no_node() -> None:
    assert not Slots(StageResources(cpus=8), Capacity(cpus=1, gpus=0), (), spare=True).none_fits(StageResources(cpus=8))


def test_an_item_whose_process_is_lost_before_its_work_begins_is_handed_out_again() -> None:
    log = Log()
    slots = Slots(StageResources(), Capacity(cpus=1, gpus=0), (), spare=False)
    dispatcher = StageDispatcher(StageQueue([QueuedStage(id="a")]), log, slots, StageResources())
    for number in range(MAX_LOSSES + 1):
        assert dispatcher.assign(str(number)) is not None
        dispatcher.ended(str(number), None)
    assert [outcome.status for outcome in log.outcomes["a"]] == MAX_LOSSES * ["lost"] + ["failed"]
    assert dispatcher.queue.failed == {"a": f"its process was lost {MAX_LOSSES + 1} times"}


def two_stages(log: Log) -> StageDispatcher:
    slots = Slots(StageResources(), Capacity(cpus=2, gpus=0), (), spare=False)
    queue = StageQueue([QueuedStage(id="a"), QueuedStage(id="b")])
    return StageDispatcher(queue, log, slots, StageResources())


def reject(dispatcher: StageDispatcher, trial: str, node: str) -> None:
    dispatcher.ended(trial, StageOutcome(status="rejected", detail=f"{node} is left out", nodes=(node,)))


def test_a_node_is_left_out_for_all_that_comes_and_told_once() -> None:
    log = Log()
    dispatcher = two_stages(log)
    for trial in ("1", "2"):
        config = dispatcher.assign(trial)
        assert config is not None
        assert config["excluded_nodes"] == []
    for trial in ("1", "2"):
        reject(dispatcher, trial, "blind")
    config = dispatcher.assign("3")
    assert config is not None
    assert config["excluded_nodes"] == ["blind"]
    assert sorted(outcome.detail for told in log.outcomes.values() for outcome in told) == ["", "blind is left out"]
    assert not dispatcher.queue.finished


def test_an_item_that_meets_new_blind_nodes_again_and_again_fails() -> None:
    log = Log()
    dispatcher = two_stages(log)
    for number in range(2 * (MAX_LOSSES + 1)):
        assert dispatcher.assign(str(number)) is not None
        reject(dispatcher, str(number), f"node {number}")
    assert dispatcher.queue.finished
    for told in log.outcomes.values():
        assert [outcome.status for outcome in told] == MAX_LOSSES * ["rejected"] + ["failed"]
    assert dispatcher.assign("late") is None


def test_nodes_are_left_out_by_their_ids_and_told_by_their_names() -> None:
    assert AdmittedNodes(check=None).selector is None
    assert AdmittedNodes(excluded=frozenset("ba")).excluding(["c"]).selector == {"ray.io/node-id": "!in(a,b,c)"}
    assert Node(id="x", name="10.0.0.3", fault="sees nothing").text == "node 10.0.0.3 is excluded: it sees nothing"
