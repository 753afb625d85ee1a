"""Ray Train inside trials on a local cluster; each stage runs on two worker processes."""

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
RESOURCES = StageResources(workers=WORKERS)


@dataclass(frozen=True)
class RankWork:
    """Work of one rank, which depends on the id of the stage; `folder` counts the attempts across processes."""

    folder: Path
    name: str

    def __call__(self, rank: int, world: int, report: ReportFunction) -> None:
        attempt = len(list(self.folder.glob(f"{self.name}-{rank}-*"))) + 1
        (self.folder / f"{self.name}-{rank}-{attempt}").touch()
        for epoch in (1, 2, 3):
            total = torch.tensor([rank + 1.0])
            dist.all_reduce(total)
            if self.name == "fail" and rank == 1:
                raise ValueError("error of rank 1")
            if self.name == "die once" and rank == 1 and attempt == 1 and epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            report({"epoch": epoch, "total": float(total), "world": world, "rank": rank})
        connections = psutil.net_connections(kind="inet")
        addresses = [
            connection.laddr.ip
            for connection in connections
            if connection.pid == os.getpid() and connection.status == psutil.CONN_LISTEN
        ]
        (self.folder / f"{self.name} done {rank}").write_text("\n".join(addresses))


@dataclass(frozen=True)
class Work:
    folder: Path

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        run_on_workers(RankWork(self.folder, name), report, resources=RESOURCES, admission=ALL_NODES, name="train",
                   scratch=str(self.folder / f"scratch {name}"))  # fmt: skip
        return StageOutcome(status="done")


@dataclass(eq=False)
class RecordingListener(Listener):
    scores: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    outcomes: dict[str, StageOutcome] = field(default_factory=dict)

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        self.scores.setdefault(name, []).append(scores)

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        self.outcomes[name] = outcome


class StoppingSource:
    """Adds a stage that it stops at the second report, then another stage."""

    def __init__(self) -> None:
        self.remaining = ["pruned", "after"]

    def next_stages(self, max_open: int) -> NewStages:
        return NewStages([QueuedStage(id=self.remaining.pop(0))] if self.remaining else [], set())

    def reported(self, name: str, scores: Mapping[str, float]) -> bool:
        return name == "pruned" and scores["epoch"] == 2

    def ended(self, name: str, outcome: StageOutcome) -> None:
        """Ignore the outcome."""


@pytest.fixture(scope="module")
def execution(
    capacity: Capacity, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StageQueue, RecordingListener, Path]:
    folder, listener = tmp_path_factory.mktemp("execution"), RecordingListener()
    stages = [QueuedStage(id="plain"), QueuedStage(id="fail", retries=0), QueuedStage(id="die once", retries=0)]
    queue = execute(stages, Work(folder), listener, capacity=capacity, resources=RESOURCES, source=StoppingSource())
    return queue, listener, folder


def test_workers_communicate_and_rank_zero_reports(execution: tuple[StageQueue, RecordingListener, Path]) -> None:
    assert execution[1].scores["plain"] == [
        {"epoch": epoch, "total": 3.0, "world": 2, "rank": 0} for epoch in (1, 2, 3)
    ]  # fmt: skip


def test_workers_of_a_local_cluster_listen_on_the_loopback_interface(
    execution: tuple[StageQueue, RecordingListener, Path],
) -> None:
    for rank in range(WORKERS):
        addresses = (execution[2] / f"plain done {rank}").read_text().split()
        assert addresses
        assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_error_of_one_worker_fails_the_stage(execution: tuple[StageQueue, RecordingListener, Path]) -> None:
    queue, _, folder = execution
    assert "ValueError: error of rank 1" in queue.failed["fail"]
    assert len(list(folder.glob("fail-1-*"))) == 1


def test_lost_worker_restarts_all_workers(execution: tuple[StageQueue, RecordingListener, Path]) -> None:
    queue, _, folder = execution
    assert "die once" in queue.done
    assert [len(list(folder.glob(f"die once-{rank}-*"))) for rank in range(WORKERS)] == [2, 2]


def test_stopped_stage_ends_and_releases_its_workers(execution: tuple[StageQueue, RecordingListener, Path]) -> None:
    queue, listener, folder = execution
    assert listener.outcomes["pruned"].status == "stopped"
    assert "after" in queue.done
    time.sleep(1)
    assert not (folder / "pruned done 0").exists()
