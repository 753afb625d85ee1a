"""A search has one driver at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from study.errors import ConfigError
from study.search.lock import search_lock
from study.store.store import Store
from tests.support.searched import planned, searched
from tests.support.tiny import planned as planned_without
from tests.support.tiny import tiny

HOLD = """
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
def other(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that holds the search."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "runs", tmp_path / "cache"], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_driver_is_refused_until_the_first_is_gone(other: "subprocess.Popen[str]", tmp_path: Path) -> None:
    plan, store = planned(searched(), tmp_path / "runs", tmp_path / "cache"), Store(tmp_path / "runs")
    with (
        pytest.raises(ConfigError, match="search: another driver runs this search; allowed: one at a time"),
        search_lock(plan, store),
    ):
        pass
    other.kill()
    other.communicate()
    with search_lock(plan, store):
        pass
    assert not list((tmp_path / "runs" / "work").glob("*/claim.json"))


def test_a_study_without_a_search_may_have_several(tmp_path: Path) -> None:
    plan, store = planned_without(tiny(), tmp_path / "cache"), Store(tmp_path / "runs")
    with search_lock(plan, store), search_lock(plan, store):
        assert not (tmp_path / "runs" / "work").exists()
