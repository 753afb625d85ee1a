"""The processes that wait for work while a cluster of this machine is there."""

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
from tests.cluster.scheduling.test_executor import Log
from tests.support.command import words_of

pytestmark = pytest.mark.cluster
MODULE = "wave"
"""That nothing else imports."""
SECONDS = 60.0
LONG_ENOUGH = 3.0
"""For Ray to end processes that wait for more than a second, where it does that."""


@dataclass(frozen=True)
class Meeting:
    """Tells its process and whether it has the module, and is done as soon as so many are there, a moment later."""

    folder: Path
    count: int = 1
    lasts: float = 0.0

    def __call__(self, name: str, report: ReportFunction) -> StageOutcome:
        (self.folder / str(os.getpid())).write_text(str(MODULE in sys.modules))
        deadline = time.monotonic() + SECONDS
        while len(list(self.folder.iterdir())) < self.count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(self.lasts)
        return StageOutcome(status="done")


@pytest.fixture
def warm() -> Iterator[Capacity]:
    if (os.cpu_count() or 1) > local_cluster.PRELOAD_CPUS:
        pytest.skip("a large machine imports nothing ahead")
    with connected(LocalCluster(preload=MODULE)) as capacity:
        yield capacity


def test_those_that_waited_have_the_module_and_get_the_work(warm: Capacity, tmp_path: Path) -> None:
    count = int(warm.cpus)
    waiting = _waiting(count)
    items = [QueuedStage(id=f"{number}") for number in range(count)]
    execute(items, Meeting(tmp_path, count), Log(), capacity=warm, resources=StageResources())
    assert {int(path.name) for path in tmp_path.iterdir()} <= waiting
    assert {path.read_text() for path in tmp_path.iterdir()} == {"True"}


def test_those_that_wait_stay_while_one_has_all_processors(warm: Capacity, tmp_path: Path) -> None:
    waiting = _waiting(int(warm.cpus))
    work, share = Meeting(tmp_path, lasts=LONG_ENOUGH), StageResources(cpus=int(warm.cpus))
    execute([QueuedStage(id="0")], work, Log(), capacity=warm, resources=share)
    [used] = tmp_path.iterdir()
    assert all(psutil.pid_exists(pid) for pid in waiting - {int(used.name)})


def test_on_a_large_machine_none_imports_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cluster, "PRELOAD_CPUS", 0)
    with connected(LocalCluster(preload=MODULE)) as capacity:
        execute([QueuedStage(id="0")], Meeting(tmp_path), Log(), capacity=capacity, resources=StageResources())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["False"]


def test_the_module_is_the_one_that_this_process_would_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another one of that name is installed."""
    monkeypatch.setattr(local_cluster, "PRELOAD_CPUS", sys.maxsize)
    modules, told = tmp_path / "modules", tmp_path / "told"
    modules.mkdir()
    (modules / f"{MODULE}.py").write_text(f"open({str(told)!r}, 'w').close()")
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.syspath_prepend(modules)
    with connected(LocalCluster(preload=MODULE)):
        deadline = time.monotonic() + SECONDS
        while not told.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert str(modules) not in os.environ.get("PYTHONPATH", "")


def test_trackers_that_are_installed_are_not_imported_for_being_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = "ray.air.integrations.mlflow"
    monkeypatch.delitem(sys.modules, counted, raising=False)
    with connected(LocalCluster()) as capacity:
        execute([QueuedStage(id="0")], Meeting(tmp_path), Log(), capacity=capacity, resources=StageResources())
    assert counted not in sys.modules


def _waiting(count: int) -> set[int]:
    """Return the processes that wait, as soon as so many have for a while."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        children = psutil.Process().children(recursive=True)
        found = {child.pid for child in children if words_of(child)[:1] == ["ray::IDLE"]}
        if len(found) >= count:
            time.sleep(LONG_ENOUGH)  # they have that name before Ray knows them
            return found
        time.sleep(0.1)
    raise AssertionError(f"not {count} processes wait")
