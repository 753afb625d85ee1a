"""What becomes of items that meet nodes which do not see what they have to, as Tune's searcher hears of it."""

from dataclasses import asdict

from cluster.connect import Capacity
from cluster.nodes import AdmittedNodes, Node
from cluster.protocol import LOST_PROCESSES, QueuedStage, StageOutcome, StageResources
from cluster.scheduling.capacity import Slots
from cluster.scheduling.stage_queue import StageQueue
from cluster.scheduling.tune_adapter import QueueSearcher
from tests.cluster.scheduling.test_executor import Log


def searcher(log: Log) -> QueueSearcher:
    slots = Slots(StageResources(), Capacity(cpus=2, gpus=0), (), spare=False)
    queue = StageQueue([QueuedStage(id="a"), QueuedStage(id="b")])
    return QueueSearcher(queue, log, lambda _: True, None, StageResources(), None, slots)


def meets(found: QueueSearcher, trial: str, node: str) -> None:
    outcome = StageOutcome(status="rejected", detail=f"{node} is left out", nodes=(node,))
    found.on_trial_complete(trial, asdict(outcome))


def test_a_node_is_left_out_for_all_that_comes_and_told_once() -> None:
    log = Log()
    found = searcher(log)
    for trial in ("1", "2"):
        config = found.suggest(trial)
        assert isinstance(config, dict)
        assert config["excluded_nodes"] == []
    for trial in ("1", "2"):
        meets(found, trial, "blind")
    config = found.suggest("3")
    assert isinstance(config, dict)
    assert config["excluded_nodes"] == ["blind"]
    assert sorted(outcome.detail for told in log.outcomes.values() for outcome in told) == ["", "blind is left out"]
    assert not found.queue.finished


def test_an_item_that_meets_new_blind_nodes_again_and_again_fails() -> None:
    log = Log()
    found = searcher(log)
    for number in range(2 * (LOST_PROCESSES + 1)):
        assert isinstance(found.suggest(str(number)), dict)
        meets(found, str(number), f"node {number}")
    assert found.queue.finished
    for told in log.outcomes.values():
        assert [outcome.status for outcome in told] == LOST_PROCESSES * ["rejected"] + ["failed"]
    assert found.suggest("late") == "FINISHED"


def test_nodes_are_left_out_by_their_ids_and_told_by_their_names() -> None:
    assert AdmittedNodes(check=None).selector is None
    assert AdmittedNodes(excluded=frozenset("ba")).excluding(["c"]).selector == {"ray.io/node-id": "!in(a,b,c)"}
    assert Node(id="x", name="10.0.0.3", fault="sees nothing").text == "node 10.0.0.3 is excluded: it sees nothing"
