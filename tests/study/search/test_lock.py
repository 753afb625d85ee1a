"""The lock that allows one driver of a search at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from study.errors import ConfigError
from study.search.lock import search_lock
from study.store.store import Store
from tests.support.searched import planned, searched
from tests.support.tiny import planned as planned_without_search
from tests.support.tiny import tiny

LOCK_HOLDER = """
import sys
from pathlib import Path
from study.search.lock import search_lock
from study.store.store import Store
from tests.support.searched import planned, searched

storage, cache = map(Path, sys.argv[1:])
with search_lock(planned(searched(), storage, cache), Store(storage)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_driver(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that holds the lock of the search."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK_HOLDER, tmp_path / "runs", tmp_path / "cache"], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_driver_is_refused_until_the_first_ends(other_driver: "subprocess.Popen[str]", tmp_path: Path) -> None:
    plan, store = planned(searched(), tmp_path / "runs", tmp_path / "cache"), Store(tmp_path / "runs")
    with (
        pytest.raises(ConfigError, match="search: another driver runs this search; allowed: one at a time"),
        search_lock(plan, store),
    ):
        pass
    other_driver.kill()
    other_driver.communicate()
    with search_lock(plan, store):
        pass
    assert not list((tmp_path / "runs" / "work").glob("*/claim.json"))


def test_study_without_search_is_not_locked(tmp_path: Path) -> None:
    plan, store = planned_without_search(tiny(), tmp_path / "cache"), Store(tmp_path / "runs")
    with search_lock(plan, store), search_lock(plan, store):
        assert not (tmp_path / "runs" / "work").exists()
