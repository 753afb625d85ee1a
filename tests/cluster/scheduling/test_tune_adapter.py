"""What Tune's searcher tells of nodes that go and come."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from cluster.connect import Capacity
from cluster.protocol import LOST_PROCESSES, QueuedStage, StageResources
from cluster.scheduling.capacity import Slots
from cluster.scheduling.stage_queue import StageQueue
from cluster.scheduling.tune_adapter import QueueScheduler, QueueSearcher
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
    searcher = QueueSearcher(StageQueue([QueuedStage(id="a")]), log, lambda _: True, None, share, None, slots)
    for nodes, times in ((large, 0), (small, 1), (small, 1), (large, 1), (small, 2)):
        there[:] = nodes
        searcher.check_capacity()
        assert log.told.count(("stranded", "")) == times


class Trials(list[Trial]):
    """A controller's trials."""

    def get_live_trials(self) -> set[Trial]:
        return set(self)


def test_trials_start_as_they_were_handed_out_also_one_that_was_lost() -> None:
    slots = Slots(StageResources(), Capacity(cpus=3, gpus=0), (), spare=False)
    items = [QueuedStage(id=name) for name in "abc"]
    searcher = QueueSearcher(StageQueue(items), Log(), lambda _: True, None, StageResources(), None, slots)
    trials = Trials(Trial("stage", stub=True, trial_id=name) for name in ("third", "first", "other", "second"))
    third, first, _, second = trials
    for trial in (first, second, third):
        searcher.suggest(trial.trial_id)
    stopper: Any = QueueScheduler(searcher)
    assert stopper.choose_trial_to_run(trials) is first
    first.set_status(Trial.RUNNING)
    assert stopper.choose_trial_to_run(trials) is second
    second.set_status(Trial.ERROR)
    assert stopper.choose_trial_to_run(trials) is third
    first.set_status(Trial.PENDING)  # its process was lost
    assert stopper.choose_trial_to_run(trials) is first
    first.set_status(Trial.RUNNING)
    third.set_status(Trial.RUNNING)
    assert stopper.choose_trial_to_run(trials) is None


def test_a_machine_of_its_own_waits_for_no_node() -> None:
    assert not Slots(StageResources(cpus=8), Capacity(cpus=1, gpus=0), (), spare=True).none_fits(StageResources(cpus=8))


def test_an_item_whose_process_is_lost_before_its_work_begins_is_handed_out_again() -> None:
    log = Log()
    slots = Slots(StageResources(), Capacity(cpus=1, gpus=0), (), spare=False)
    searcher = QueueSearcher(
        StageQueue([QueuedStage(id="a")]), log, lambda _: True, None, StageResources(), None, slots
    )
    for number in range(LOST_PROCESSES + 1):
        assert isinstance(searcher.suggest(str(number)), dict)
        searcher.on_trial_complete(str(number), error=True)
    assert [outcome.status for outcome in log.outcomes["a"]] == LOST_PROCESSES * ["lost"] + ["failed"]
    assert searcher.queue.failed == {"a": f"its process was lost {LOST_PROCESSES + 1} times"}
