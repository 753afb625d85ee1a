"""Execution of a graph on a local Ray cluster, with a stand-in for the work of its stages."""

import errno
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cluster.connect import Capacity
from cluster.protocol import NewStages, QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.executor import execute
from cluster.scheduling.stage_queue import StageQueue
from tests.support.cluster_stages import RecordingListener, finish_immediately

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Task:
    """Work that depends on the id of the stage; `folder` counts the attempts across processes."""

    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        attempts = self.folder / f"{name}.attempts"
        attempts.mkdir(exist_ok=True)
        (attempts / str(time.monotonic_ns())).touch()
        attempt = len(list(attempts.iterdir()))
        match name.partition(":")[0]:
            case "fail":
                raise ValueError(f"attempt {attempt} of {name}\nsecond line")
            case "fail once" if attempt == 1:
                raise ValueError("first attempt")
            case "report":
                for epoch in (1, 2, 3):
                    report({"epoch": epoch, "epochs": 3})
            case "die once" if attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "damaged" if attempt == 1:
                return StageOutcome(status="redo", detail="the parent is broken", redo="parent")
            case "busy" if attempt < 3:
                return StageOutcome(status="busy")
        return StageOutcome(status="done")


def run_graph(
    stages: list[QueuedStage], folder: Path, capacity: Capacity, listener: RecordingListener, **options: object
) -> StageQueue:
    return execute(stages, Task(folder), listener, capacity=capacity, resources=StageResources(), **options)  # type: ignore[arg-type]


@dataclass(eq=False)
class FailingListener(RecordingListener):
    """Raises when a stage ends."""

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        raise OSError(errno.ENOSPC, "no space left")


def test_error_of_the_listener_ends_the_run_and_is_raised(capacity: Capacity, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        run_graph([QueuedStage(id="plain"), QueuedStage(id="report")], tmp_path, capacity, FailingListener())


@dataclass(frozen=True, kw_only=True)
class Execution:
    queue: StageQueue
    listener: RecordingListener
    folder: Path

    def attempts(self, name: str) -> int:
        folder = self.folder / f"{name}.attempts"
        return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.fixture(scope="module")
def execution(capacity: Capacity, tmp_path_factory: pytest.TempPathFactory) -> Execution:
    """A run whose stages succeed, fail, die, are damaged, busy, delayed and already finished."""
    stages = [
        QueuedStage(id="plain"),
        QueuedStage(id="plain child", needs=("plain",)),
        QueuedStage(id="fail"),
        QueuedStage(id="fail child", needs=("fail",)),
        QueuedStage(id="fail grandchild", needs=("fail child",)),
        QueuedStage(id="fail once"),
        QueuedStage(id="fail once child", needs=("fail once",)),
        QueuedStage(id="report"),
        QueuedStage(id="die once"),
        QueuedStage(id="die once child", needs=("die once",)),
        QueuedStage(id="parent"),
        QueuedStage(id="damaged", needs=("parent",)),
        QueuedStage(id="busy"),
        QueuedStage(id="delayed"),
        QueuedStage(id="long finished"),
        QueuedStage(id="child of finished", needs=("long finished",)),
    ]
    folder, listener = tmp_path_factory.mktemp("execution"), RecordingListener()
    calls: list[str] = []

    def may_start(name: str) -> bool:
        calls.append(name)
        return name != "delayed" or calls.count("delayed") > 3

    queue = run_graph(stages, folder, capacity, listener, may_start=may_start, done=["long finished"])
    return Execution(queue=queue, listener=listener, folder=folder)


def test_all_stages_without_failed_ancestors_are_done(execution: Execution) -> None:
    assert execution.queue.finished
    assert execution.queue.failed.keys() == {"fail"}
    assert execution.queue.skipped == {"fail child", "fail grandchild"}
    assert len(execution.queue.done) == 13


def test_child_starts_after_its_parent_ended(execution: Execution) -> None:
    events = execution.listener.events

    assert events.index(("done", "plain")) < events.index(("started", "plain child"))


def test_error_is_retried_once(execution: Execution) -> None:
    assert (execution.attempts("fail"), execution.attempts("fail once"), execution.attempts("fail child")) == (2, 2, 0)


def test_failure_contains_the_error_and_its_traceback(execution: Execution) -> None:
    lines = execution.queue.failed["fail"].splitlines()

    assert lines[0] == "ValueError: attempt 2 of fail"
    assert any("test_executor.py" in line for line in lines)


def test_reports_arrive_in_order(execution: Execution) -> None:
    assert [scores["epoch"] for scores in execution.listener.scores["report"]] == [1, 2, 3]


def test_stage_of_killed_process_is_reported_lost_and_retried(execution: Execution) -> None:
    assert ("lost", "die once") in execution.listener.events
    assert execution.attempts("die once") == 2
    assert ("done", "die once child") in execution.listener.events


def test_damaged_parent_runs_again_before_its_child(execution: Execution) -> None:
    assert (execution.attempts("parent"), execution.attempts("damaged")) == (2, 2)
    assert execution.listener.outcomes["damaged"][0].detail == "the parent is broken"


def test_stage_run_by_another_driver_is_retried_until_done(execution: Execution) -> None:
    assert execution.attempts("busy") == 3


def test_stage_that_may_not_start_yet_is_started_later(execution: Execution) -> None:
    assert execution.attempts("delayed") == 1
    assert execution.listener.events.count(("started", "delayed")) == 1


def test_finished_stage_is_not_run(execution: Execution) -> None:
    assert execution.attempts("long finished") == 0
    assert execution.attempts("child of finished") == 1


def test_finished_graph_needs_no_cluster(tmp_path: Path) -> None:
    queue = run_graph(
        [QueuedStage(id="plain")], tmp_path, Capacity(cpus=0, gpus=0), RecordingListener(), done=["plain"]
    )

    assert queue.finished


def test_three_hundred_empty_stages_all_run(capacity: Capacity) -> None:
    names = [f"{number:03d}" for number in range(300)]
    stages = [
        QueuedStage(id=name, needs=(names[position - 100],) if position >= 100 else ())
        for position, name in enumerate(names)
    ]

    assert execute(
        stages, finish_immediately, RecordingListener(), capacity=capacity, resources=StageResources()
    ).done == set(names)


@dataclass
class ReportingWork:
    """Reports epochs 1 to `epochs` and creates a file for each; fails with a negative number of epochs."""

    folder: Path
    epochs: int

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        if self.epochs < 0:
            raise ValueError("negative number of epochs")
        try:
            for epoch in range(1, self.epochs + 1):
                (self.folder / f"{name}-{epoch}-{os.getpid()}").touch()
                report({"epoch": epoch, "epochs": self.epochs})
        finally:
            (self.folder / f"{name}-exited").touch()
        return StageOutcome(status="done", detail=str(os.getpid()))


@dataclass
class StoppingSource:
    """Adds ten stages one at a time and stops those with an even number at their second report."""

    folder: Path
    count: int = 10
    started: int = 0
    ended_stages: list[tuple[str, str]] = field(default_factory=list)

    def next_stages(self, max_open: int) -> NewStages:
        if self.started == self.count or self.started > len(self.ended_stages):
            return NewStages([], set())
        self.started += 1
        name, epochs = f"stage{self.started}", -1 if self.started == 7 else 5
        return NewStages(
            [QueuedStage(id=name, needs=("base",), work=ReportingWork(self.folder, epochs), retries=0)], set()
        )

    def reported(self, name: str, scores: Mapping[str, float]) -> bool:
        return name[-1] in "02468" and scores["epoch"] == 2

    def ended(self, name: str, outcome: StageOutcome) -> None:
        if name != "base":
            self.ended_stages.append((name, outcome.status))


@pytest.fixture(scope="module")
def stopping_run(
    capacity: Capacity, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StoppingSource, StageQueue, RecordingListener]:
    folder, listener = tmp_path_factory.mktemp("stopping_run"), RecordingListener()
    source = StoppingSource(folder)
    queue = execute(
        [QueuedStage(id="base")],
        finish_immediately,
        listener,
        capacity=capacity,
        resources=StageResources(),
        source=source,
    )
    return source, queue, listener


def test_source_is_called_until_it_adds_nothing_and_receives_each_outcome(
    stopping_run: tuple[StoppingSource, StageQueue, RecordingListener],
) -> None:
    statuses = dict(stopping_run[0].ended_stages)
    assert list(statuses) == [f"stage{number}" for number in range(1, 11)]
    assert statuses["stage7"] == "failed"
    assert [statuses[f"stage{number}"] for number in (1, 2, 3, 4, 10)] == [
        "done",
        "stopped",
        "done",
        "stopped",
        "stopped",
    ]


def test_stopped_stage_ends_at_that_report_and_runs_its_cleanup(
    stopping_run: tuple[StoppingSource, StageQueue, RecordingListener],
) -> None:
    reports = {path.name.rpartition("-")[0] for path in stopping_run[0].folder.glob("stage2-?-*")}
    assert reports == {"stage2-1", "stage2-2"}
    assert (stopping_run[0].folder / "stage2-exited").exists()


def test_process_is_reused_after_its_stage_was_stopped(
    stopping_run: tuple[StoppingSource, StageQueue, RecordingListener], capacity: Capacity
) -> None:
    process_ids = {path.name.rpartition("-")[2] for path in stopping_run[0].folder.glob("stage*-1-*")}
    assert len(process_ids) <= capacity.cpus + 1


def test_stopped_stage_is_neither_done_nor_failed(
    stopping_run: tuple[StoppingSource, StageQueue, RecordingListener],
) -> None:
    queue = stopping_run[1]
    assert queue.finished
    assert queue.failed.keys() == {"stage7"}
    assert queue.done == {"base", *(f"stage{number}" for number in (1, 3, 5, 9))}


def return_process_id(name: str, report: ReportFunction) -> StageOutcome:
    return StageOutcome(status="failed", detail=str(os.getpid()))


def test_processes_are_reused(capacity: Capacity) -> None:
    listener = RecordingListener()
    execute(
        [QueuedStage(id=str(number)) for number in range(8)],
        return_process_id,
        listener,
        capacity=capacity,
        resources=StageResources(),
    )
    process_ids = {outcome.detail for outcomes in listener.outcomes.values() for outcome in outcomes}

    assert len(listener.events) == 8 * 4, "each stage has two attempts with two events each"
    assert len(process_ids) <= capacity.cpus + 1
    assert str(psutil.Process().pid) not in process_ids
