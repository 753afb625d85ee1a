"""Idle worker processes of a local cluster, which import a module in advance."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster import local_cluster
from cluster.connect import Capacity, connected
from cluster.local_cluster import LocalCluster
from cluster.protocol import QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.executor import execute
from tests.support.cluster_stages import RecordingListener
from tests.support.command import command_line_of

pytestmark = pytest.mark.cluster
MODULE = "wave"
"""A module that nothing else imports."""
SECONDS = 60.0
IDLE_SECONDS = 3.0
"""Longer than the second after which Ray by default ends idle processes."""


@dataclass(frozen=True)
class BarrierWork:
    """Records its process and whether the module is imported, then waits for `count` processes and for `seconds`."""

    folder: Path
    count: int = 1
    seconds: float = 0.0

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        (self.folder / str(os.getpid())).write_text(str(MODULE in sys.modules))
        deadline = time.monotonic() + SECONDS
        while len(list(self.folder.iterdir())) < self.count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(self.seconds)
        return StageOutcome(status="done")


@pytest.fixture
def preloading() -> Iterator[Capacity]:
    if (os.cpu_count() or 1) > local_cluster.PRELOAD_CPUS:
        pytest.skip("machines with many CPU cores do not preload")
    with connected(LocalCluster(preload=MODULE)) as capacity:
        yield capacity


def test_idle_processes_have_the_module_and_run_the_stages(preloading: Capacity, tmp_path: Path) -> None:
    count = int(preloading.cpus)
    idle = _idle_processes(count)
    stages = [QueuedStage(id=f"{number}") for number in range(count)]
    execute(stages, BarrierWork(tmp_path, count), RecordingListener(), capacity=preloading, resources=StageResources())
    assert {int(path.name) for path in tmp_path.iterdir()} <= idle
    assert {path.read_text() for path in tmp_path.iterdir()} == {"True"}


def test_idle_processes_stay_while_a_stage_uses_all_cpus(preloading: Capacity, tmp_path: Path) -> None:
    idle = _idle_processes(int(preloading.cpus))
    work, resources = BarrierWork(tmp_path, seconds=IDLE_SECONDS), StageResources(cpus=int(preloading.cpus))
    execute([QueuedStage(id="0")], work, RecordingListener(), capacity=preloading, resources=resources)
    [file] = tmp_path.iterdir()
    assert all(psutil.pid_exists(pid) for pid in idle - {int(file.name)})


def test_machine_with_many_cpus_does_not_preload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cluster, "PRELOAD_CPUS", 0)
    with connected(LocalCluster(preload=MODULE)) as capacity:
        execute(
            [QueuedStage(id="0")],
            BarrierWork(tmp_path),
            RecordingListener(),
            capacity=capacity,
            resources=StageResources(),
        )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["False"]


def test_preloaded_module_is_the_one_this_process_would_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if another module of that name is installed."""
    monkeypatch.setattr(local_cluster, "PRELOAD_CPUS", sys.maxsize)
    modules, marker = tmp_path / "modules", tmp_path / "marker"
    modules.mkdir()
    (modules / f"{MODULE}.py").write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.syspath_prepend(modules)
    with connected(LocalCluster(preload=MODULE)):
        deadline = time.monotonic() + SECONDS
        while not marker.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert str(modules) not in os.environ.get("PYTHONPATH", "")


def test_installed_trackers_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    integration = "ray.air.integrations.mlflow"
    monkeypatch.delitem(sys.modules, integration, raising=False)
    with connected(LocalCluster()) as capacity:
        execute(
            [QueuedStage(id="0")],
            BarrierWork(tmp_path),
            RecordingListener(),
            capacity=capacity,
            resources=StageResources(),
        )
    assert integration not in sys.modules


def _idle_processes(count: int) -> set[int]:
    """Return the idle worker processes once `count` of them have been idle for a while."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        children = psutil.Process().children(recursive=True)
        idle = {child.pid for child in children if command_line_of(child)[:1] == ["ray::IDLE"]}
        if len(idle) >= count:
            time.sleep(IDLE_SECONDS)  # processes have that title before they are registered with Ray
            return idle
        time.sleep(0.1)
    raise AssertionError(f"fewer than {count} idle processes")
