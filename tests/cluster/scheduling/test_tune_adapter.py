"""The searcher and scheduler given to Ray Tune, and what the adapter replaces in Tune while a graph runs."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial

from cluster.connect import Capacity
from cluster.protocol import QueuedStage, StageOutcome, StageResources
from cluster.scheduling.capacity import Slots
from cluster.scheduling.dispatcher import StageDispatcher
from cluster.scheduling.executor import execute
from cluster.scheduling.stage_queue import StageQueue
from cluster.scheduling.tune_adapter import DispatcherCalls, NodeOutOfMemory, QueueScheduler, QueueSearcher
from tests.support.cluster_stages import RecordingListener, finish_immediately


class Trials(list[Trial]):
    """A controller's trials."""

    def get_live_trials(self) -> set[Trial]:
        return set(self)


def stored_trial(folder: Path) -> Trial:
    """Return a trial that writes its errors to a folder."""

    class StoredTrial(Trial):
        local_path = str(folder)

    return StoredTrial("stage", stub=True, trial_id="first", max_failures=10)


class Adapter:
    """A searcher and a scheduler for three stages on three CPU cores, with their trials."""

    def __init__(self, *names: str, listener: RecordingListener | None = None) -> None:
        self.listener = listener or RecordingListener()
        slots = Slots(StageResources(), Capacity(cpus=3, gpus=0), (), spare=False)
        queue = StageQueue([QueuedStage(id=name) for name in "abc"])
        # As with fractional GPUs, only Ray knows which trials are running.
        self.dispatcher = StageDispatcher(queue, self.listener, slots, StageResources(), gpus=lambda _: 0.0)
        self.calls = DispatcherCalls(self.dispatcher)
        self.searcher, self.scheduler = QueueSearcher(self.calls), QueueScheduler(self.calls)
        self.trials = Trials(Trial("stage", stub=True, trial_id=name) for name in names)

    def choose_trial(self) -> Trial | None:
        controller: Any = self.trials
        return self.scheduler.choose_trial_to_run(controller)


def test_trials_start_in_order_of_suggestion_also_after_a_loss() -> None:
    adapter = Adapter("third", "first", "other", "second")
    third, first, _, second = adapter.trials
    for trial in (first, second, third):
        adapter.searcher.suggest(trial.trial_id)
    assert adapter.choose_trial() is first
    first.set_status(Trial.RUNNING)
    assert adapter.choose_trial() is second
    second.set_status(Trial.ERROR)
    assert adapter.choose_trial() is third
    first.set_status(Trial.PENDING)  # its process was lost
    assert adapter.choose_trial() is first
    first.set_status(Trial.RUNNING)
    third.set_status(Trial.RUNNING)
    assert adapter.choose_trial() is None


def test_started_is_called_once_per_trial_and_before_its_first_report() -> None:
    adapter = Adapter("first", "second")
    first, second = adapter.trials
    for trial in adapter.trials:
        adapter.searcher.suggest(trial.trial_id)
    assert adapter.listener.events == []
    first.set_status(Trial.RUNNING)
    for _ in range(2):
        adapter.choose_trial()
    assert adapter.listener.events == [("started", "a")]
    adapter.scheduler.on_trial_result(adapter.trials, second, {"scores/epoch": 1, "training_iteration": 1})
    assert adapter.listener.events == [("started", "a"), ("started", "b")]
    assert adapter.listener.scores == {"b": [{"epoch": 1}]}


@pytest.mark.parametrize(
    ("failures", "status", "calls"),
    [(1, Trial.ERROR, 1), (1, Trial.PENDING, 0), (99, Trial.RUNNING, 0)],
    ids=["restarted", "not yet running", "too often"],
)
def test_lost_is_called_only_if_tune_restarts_the_trial(failures: int, status: str, calls: int, tmp_path: Path) -> None:
    adapter, trial = Adapter(), stored_trial(tmp_path)
    adapter.searcher.suggest(trial.trial_id)
    trial.run_metadata.num_failures = failures
    trial.set_status(status)
    adapter.scheduler.on_trial_error(adapter.trials, trial)
    assert adapter.listener.events.count(("lost", "a")) == calls


@pytest.mark.parametrize(
    ("error", "reason"),
    [(NodeOutOfMemory(ValueError("x")), "the memory of its node was short"), (RayActorError(), "")],
    ids=["out of memory", "killed"],
)
def test_loss_reason_is_that_of_the_last_failure(error: RayActorError, reason: str, tmp_path: Path) -> None:
    adapter, trial = Adapter(), stored_trial(tmp_path)
    adapter.searcher.suggest(trial.trial_id)
    for exception in (NodeOutOfMemory(ValueError("an earlier one")), error):
        trial.handle_error(exception)
    trial.set_status(Trial.ERROR)
    adapter.scheduler.on_trial_error(adapter.trials, trial)
    assert adapter.listener.loss_reasons == [reason]


class FailingListener(RecordingListener):
    """Raises on every report."""

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        raise OSError("no space left")


def test_first_error_is_kept_and_raised_again_by_later_calls() -> None:
    adapter = Adapter("first", listener=FailingListener())
    (trial,) = adapter.trials
    adapter.searcher.suggest(trial.trial_id)
    with pytest.raises(OSError, match="no space left") as first:
        adapter.scheduler.on_trial_result(adapter.trials, trial, {"scores/epoch": 1})
    with pytest.raises(OSError, match="no space left") as later:
        adapter.searcher.suggest("second")
    assert first.value is later.value is adapter.calls.error


def test_searcher_is_finished_once_every_stage_has_ended() -> None:
    adapter = Adapter()
    for name in "123":
        assert isinstance(adapter.searcher.suggest(name), dict)
    assert adapter.searcher.suggest("4") is None
    for name in "123":
        adapter.searcher.on_trial_complete(name, asdict(StageOutcome(status="done")))
    assert adapter.searcher.suggest("5") == "FINISHED"


@pytest.mark.cluster
def test_tune_is_restored_after_the_run(capacity: Capacity) -> None:
    before = tune_controller.RayActorManager, tune_controller._ActorClassCache
    execute(
        [QueuedStage(id="only")], finish_immediately, RecordingListener(), capacity=capacity, resources=StageResources()
    )
    assert (tune_controller.RayActorManager, tune_controller._ActorClassCache) == before
