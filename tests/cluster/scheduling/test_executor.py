"""The graph on a real Ray cluster; what the items do is made up."""

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

pytestmark = pytest.mark.cluster


@dataclass(eq=False)
class Log:
    """Remembers all that it is told, in order."""

    told: list[tuple[str, str]] = field(default_factory=list)
    outcomes: dict[str, list[StageOutcome]] = field(default_factory=dict)
    scores: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    whys: list[str] = field(default_factory=list)

    def started(self, name: str) -> None:
        self.told.append(("started", name))

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        self.scores.setdefault(name, []).append(scores)

    def lost(self, name: str, reason: str) -> None:
        self.told.append(("lost", name))
        self.whys.append(reason)

    def stranded(self) -> None:
        self.told.append(("stranded", ""))

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        self.told.append(("again" if again else outcome.status, name))
        self.outcomes.setdefault(name, []).append(outcome)


@dataclass(frozen=True)
class Task:
    """What an item does is in its name, before the colon; `folder` remembers across processes."""

    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        tries = self.folder / f"{name}.tries"
        tries.mkdir(exist_ok=True)
        (tries / str(time.monotonic_ns())).touch()
        tried = len(list(tries.iterdir()))
        match name.partition(":")[0]:
            case "fail":
                raise ValueError(f"try {tried} of {name}\nsecond line")
            case "fail once" if tried == 1:
                raise ValueError("the first time")
            case "report":
                for epoch in (1, 2, 3):
                    report({"epoch": epoch, "epochs": 3})
            case "die once" if tried == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "damaged" if tried == 1:
                return StageOutcome(status="redo", detail="the parent is broken", redo="parent")
            case "busy" if tried < 3:
                return StageOutcome(status="busy")
        return StageOutcome(status="done")


def ran(items: list[QueuedStage], folder: Path, capacity: Capacity, log: Log, **options: object) -> StageQueue:
    return execute(items, Task(folder), log, capacity=capacity, resources=StageResources(), **options)  # type: ignore[arg-type]


@dataclass(eq=False)
class Full(Log):
    """Cannot write down what it hears of ends."""

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        raise OSError(errno.ENOSPC, "no space left")


def test_what_goes_wrong_where_an_end_is_heard_ends_the_run_as_it_is(capacity: Capacity, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        ran([QueuedStage(id="plain"), QueuedStage(id="report")], tmp_path, capacity, Full())


@dataclass(frozen=True, kw_only=True)
class Told:
    queue: StageQueue
    log: Log
    folder: Path

    def tries(self, name: str) -> int:
        folder = self.folder / f"{name}.tries"
        return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.fixture(scope="module")
def mixed(capacity: Capacity, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run in which everything happens at once."""
    items = [
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
        QueuedStage(id="held"),
        QueuedStage(id="long finished"),
        QueuedStage(id="child of finished", needs=("long finished",)),
    ]
    folder, log = tmp_path_factory.mktemp("mixed"), Log()
    asked: list[str] = []

    def may_start(name: str) -> bool:
        asked.append(name)
        return name != "held" or asked.count("held") > 3

    queue = ran(items, folder, capacity, log, may_start=may_start, done=["long finished"])
    return Told(queue=queue, log=log, folder=folder)


def test_all_that_can_be_done_is_done(mixed: Told) -> None:
    assert mixed.queue.finished
    assert mixed.queue.failed.keys() == {"fail"}
    assert mixed.queue.skipped == {"fail child", "fail grandchild"}
    assert len(mixed.queue.done) == 13


def test_child_starts_after_its_parent_ended(mixed: Told) -> None:
    told = mixed.log.told

    assert told.index(("done", "plain")) < told.index(("started", "plain child"))


def test_error_is_retried_once(mixed: Told) -> None:
    assert (mixed.tries("fail"), mixed.tries("fail once"), mixed.tries("fail child")) == (2, 2, 0)


def test_error_is_told_by_its_first_line_and_its_traceback(mixed: Told) -> None:
    lines = mixed.queue.failed["fail"].splitlines()

    assert lines[0] == "ValueError: try 2 of fail"
    assert any("test_executor.py" in line for line in lines)


def test_reports_arrive_in_order(mixed: Told) -> None:
    assert [scores["epoch"] for scores in mixed.log.scores["report"]] == [1, 2, 3]


def test_killed_process_is_told_and_its_item_handed_out_again(mixed: Told) -> None:
    assert ("lost", "die once") in mixed.log.told
    assert mixed.tries("die once") == 2
    assert ("done", "die once child") in mixed.log.told


def test_damaged_parent_runs_again_before_its_child(mixed: Told) -> None:
    assert (mixed.tries("parent"), mixed.tries("damaged")) == (2, 2)
    assert mixed.log.outcomes["damaged"][0].detail == "the parent is broken"


def test_item_that_another_driver_runs_is_asked_for_until_it_is_done(mixed: Told) -> None:
    assert mixed.tries("busy") == 3


def test_item_that_may_not_start_yet_is_handed_out_later(mixed: Told) -> None:
    assert mixed.tries("held") == 1
    assert mixed.log.told.count(("started", "held")) == 1


def test_item_done_before_is_not_run(mixed: Told) -> None:
    assert mixed.tries("long finished") == 0
    assert mixed.tries("child of finished") == 1


def test_nothing_to_do_needs_no_cluster(tmp_path: Path) -> None:
    queue = ran([QueuedStage(id="plain")], tmp_path, Capacity(cpus=0, gpus=0), Log(), done=["plain"])

    assert queue.finished


def count(name: str, report: ReportFunction) -> StageOutcome:
    """Do nothing."""
    return StageOutcome(status="done")


def test_three_hundred_empty_items_all_run(capacity: Capacity) -> None:
    names = [f"{number:03d}" for number in range(300)]
    items = [
        QueuedStage(id=name, needs=(names[place - 100],) if place >= 100 else ()) for place, name in enumerate(names)
    ]

    assert execute(items, count, Log(), capacity=capacity, resources=StageResources()).done == set(names)


@dataclass
class Climbing:
    """Reports 1, 2, 3 ... to its height, and leaves a mark of each in its folder."""

    folder: Path
    height: int

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        if self.height < 0:
            raise ValueError("below ground")
        try:
            for step in range(1, self.height + 1):
                (self.folder / f"{name}-{step}-{os.getpid()}").touch()
                report({"epoch": step, "epochs": self.height})
        finally:
            (self.folder / f"{name}-left").touch()
        return StageOutcome(status="done", detail=str(os.getpid()))


@dataclass
class Climbs:
    """A source of ten items, one at a time; those of an even number are stopped at their second report."""

    folder: Path
    count: int = 10
    begun: int = 0
    ends: list[tuple[str, str]] = field(default_factory=list)

    def next_stages(self, max_open: int) -> NewStages:
        if self.begun == self.count or self.begun > len(self.ends):
            return NewStages([], set())
        self.begun += 1
        name, height = f"climb{self.begun}", -1 if self.begun == 7 else 5
        return NewStages([QueuedStage(id=name, needs=("base",), work=Climbing(self.folder, height), retries=0)], set())

    def reported(self, name: str, scores: Mapping[str, float]) -> bool:
        return name[-1] in "02468" and scores["epoch"] == 2

    def ended(self, name: str, outcome: StageOutcome) -> None:
        if name != "base":
            self.ends.append((name, outcome.status))


@pytest.fixture(scope="module")
def climbed(capacity: Capacity, tmp_path_factory: pytest.TempPathFactory) -> tuple[Climbs, StageQueue, Log]:
    folder, log = tmp_path_factory.mktemp("climbed"), Log()
    source = Climbs(folder)
    queue = execute([QueuedStage(id="base")], count, log, capacity=capacity, resources=StageResources(), source=source)
    return source, queue, log


def test_a_source_is_asked_until_it_has_no_more_and_told_each_end(climbed: tuple[Climbs, StageQueue, Log]) -> None:
    told = dict(climbed[0].ends)
    assert list(told) == [f"climb{number}" for number in range(1, 11)]
    assert told["climb7"] == "failed"
    assert [told[f"climb{number}"] for number in (1, 2, 3, 4, 10)] == ["done", "stopped", "done", "stopped", "stopped"]


def test_a_stopped_item_ends_at_that_report_and_leaves_its_work_in_order(
    climbed: tuple[Climbs, StageQueue, Log],
) -> None:
    marks = {path.name.rpartition("-")[0] for path in climbed[0].folder.glob("climb2-?-*")}
    assert marks == {"climb2-1", "climb2-2"}
    assert (climbed[0].folder / "climb2-left").exists()


def test_a_process_goes_on_after_it_was_stopped(climbed: tuple[Climbs, StageQueue, Log], capacity: Capacity) -> None:
    used = {path.name.rpartition("-")[2] for path in climbed[0].folder.glob("climb*-1-*")}
    assert len(used) <= capacity.cpus + 1


def test_a_stopped_item_is_neither_done_nor_failed(climbed: tuple[Climbs, StageQueue, Log]) -> None:
    queue = climbed[1]
    assert queue.finished
    assert queue.failed.keys() == {"climb7"}
    assert queue.done == {"base", *(f"climb{number}" for number in (1, 3, 5, 9))}


def processes(name: str, report: ReportFunction) -> StageOutcome:
    return StageOutcome(status="failed", detail=str(os.getpid()))


def test_processes_are_reused(capacity: Capacity) -> None:
    log = Log()
    execute(
        [QueuedStage(id=str(number)) for number in range(8)],
        processes,
        log,
        capacity=capacity,
        resources=StageResources(),
    )
    used = {outcome.detail for outcomes in log.outcomes.values() for outcome in outcomes}

    assert len(log.told) == 8 * 4, "each is handed out twice"
    assert len(used) <= capacity.cpus + 1
    assert str(psutil.Process().pid) not in used
