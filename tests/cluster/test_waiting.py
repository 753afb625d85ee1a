"""The processes that wait for work while a cluster of this machine is there."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster import local
from cluster.connect import connected
from cluster.execute import execute
from cluster.local import LocalCluster
from cluster.queue import Item
from cluster.work import Outcome, Report, Share
from tests.cluster.test_execute import Log
from tests.data.command import words_of

pytestmark = pytest.mark.cluster
MODULE = "wave"
"""That nothing else imports."""


@dataclass(frozen=True)
class Meeting:
    """Tells its process and whether it has the module, and is done once so many have come."""

    folder: Path
    count: int

    def __call__(self, name: str, report: Report) -> Outcome:
        (self.folder / str(os.getpid())).write_text(str(MODULE in sys.modules))
        while len(list(self.folder.iterdir())) < self.count:
            time.sleep(0.05)
        return Outcome(status="done")


def test_those_that_waited_have_the_module_and_get_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PRELOAD_CPUS", sys.maxsize)
    with connected(LocalCluster(preload=MODULE)) as capacity:
        count = int(capacity.cpus)
        waiting = _waiting(count)
        time.sleep(2)  # Ray would end those that waited for a second
        items = [Item(id=f"{number}") for number in range(count)]
        execute(items, Meeting(tmp_path, count), Log(), capacity=capacity, share=Share())
    assert {int(path.name) for path in tmp_path.iterdir()} == waiting
    assert {path.read_text() for path in tmp_path.iterdir()} == {"True"}


def test_on_a_large_machine_none_imports_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PRELOAD_CPUS", 0)
    with connected(LocalCluster(preload=MODULE)) as capacity:
        execute([Item(id="0")], Meeting(tmp_path, 1), Log(), capacity=capacity, share=Share())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["False"]


def test_trackers_that_are_installed_are_not_imported_for_being_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = "ray.air.integrations.mlflow"
    monkeypatch.delitem(sys.modules, counted, raising=False)
    with connected(LocalCluster()) as capacity:
        execute([Item(id="0")], Meeting(tmp_path, 1), Log(), capacity=capacity, share=Share())
    assert counted not in sys.modules


def _waiting(count: int) -> set[int]:
    """Return the processes that wait, as soon as there are so many."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = psutil.Process().children(recursive=True)
        found = {child.pid for child in children if words_of(child)[:1] == ["ray::IDLE"]}
        if len(found) == count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not {count} processes wait")
