"""Ray Train inside trials on a real cluster; every item is worked on by two processes."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist

from cluster.connect import Capacity
from cluster.nodes import ALL_NODES
from cluster.protocol import Listener, NewStages, QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.executor import execute
from cluster.scheduling.multi_worker import run_on_workers
from cluster.scheduling.stage_queue import StageQueue

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]
WORKERS = 2
SHARE = StageResources(workers=WORKERS)


@dataclass(frozen=True)
class Member:
    """What each process does is in the item's name; `folder` remembers across processes."""

    folder: Path
    name: str

    def __call__(self, rank: int, world: int, report: ReportFunction) -> None:
        tries = len(list(self.folder.glob(f"{self.name}-{rank}-*"))) + 1
        (self.folder / f"{self.name}-{rank}-{tries}").touch()
        for epoch in (1, 2, 3):
            shared = torch.tensor([rank + 1.0])
            dist.all_reduce(shared)
            if self.name == "fail" and rank == 1:
                raise ValueError("rank 1 has had enough")
            if self.name == "die once" and rank == 1 and tries == 1 and epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            report({"epoch": epoch, "shared": float(shared), "world": world, "rank": rank})
        family = psutil.net_connections(kind="inet")
        listening = [each.laddr.ip for each in family if each.pid == os.getpid() and each.status == psutil.CONN_LISTEN]
        (self.folder / f"{self.name} done {rank}").write_text("\n".join(listening))


@dataclass(frozen=True)
class Work:
    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        run_on_workers(Member(self.folder, name), report, resources=SHARE, admission=ALL_NODES, name="train",
                   scratch=str(self.folder / f"scratch {name}"))  # fmt: skip
        return StageOutcome(status="done")


@dataclass(eq=False)
class Log(Listener):
    scores: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    outcomes: dict[str, StageOutcome] = field(default_factory=dict)

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        self.scores.setdefault(name, []).append(scores)

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        self.outcomes[name] = outcome


class Pruning:
    """Brings one item and stops it at its second report, then another."""

    def __init__(self) -> None:
        self.left = ["pruned", "after"]

    def next_stages(self, max_open: int) -> NewStages:
        return NewStages([QueuedStage(id=self.left.pop(0))] if self.left else [], set())

    def reported(self, name: str, scores: Mapping[str, float]) -> bool:
        return name == "pruned" and scores["epoch"] == 2

    def ended(self, name: str, outcome: StageOutcome) -> None:
        """Hear of it."""


@pytest.fixture(scope="module")
def ran(capacity: Capacity, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageQueue, Log, Path]:
    folder, log = tmp_path_factory.mktemp("ran"), Log()
    items = [QueuedStage(id="plain"), QueuedStage(id="fail", retries=0), QueuedStage(id="die once", retries=0)]
    queue = execute(items, Work(folder), log, capacity=capacity, resources=SHARE, source=Pruning())
    return queue, log, folder


def test_processes_talk_to_each_other_and_the_first_is_heard(ran: tuple[StageQueue, Log, Path]) -> None:
    assert ran[1].scores["plain"] == [
        {"epoch": epoch, "shared": 3.0, "world": 2, "rank": 0} for epoch in (1, 2, 3)
    ]  # fmt: skip


def test_processes_of_one_machine_listen_on_the_loopback_interface(ran: tuple[StageQueue, Log, Path]) -> None:
    for rank in range(WORKERS):
        listening = (ran[2] / f"plain done {rank}").read_text().split()
        assert listening
        assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_what_one_raises_fails_the_item(ran: tuple[StageQueue, Log, Path]) -> None:
    queue, _, folder = ran
    assert "ValueError: rank 1 has had enough" in queue.failed["fail"]
    assert len(list(folder.glob("fail-1-*"))) == 1


def test_a_lost_process_lets_all_begin_again(ran: tuple[StageQueue, Log, Path]) -> None:
    queue, _, folder = ran
    assert "die once" in queue.done
    assert [len(list(folder.glob(f"die once-{rank}-*"))) for rank in range(WORKERS)] == [2, 2]


def test_a_stopped_item_ends_and_frees_its_processes(ran: tuple[StageQueue, Log, Path]) -> None:
    queue, log, folder = ran
    assert log.outcomes["pruned"].status == "stopped"
    assert "after" in queue.done
    time.sleep(1)
    assert not (folder / "pruned done 0").exists()
