"""The demo study with a driver that is killed repeatedly at random times."""

import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.command import Command, histories

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(3600)]
DEMO = Path("study/catalog/demo.yaml")
KILLS = 5
PATIENCE = 1800.0
"""Seconds; the demo takes two minutes on two idle cores."""
LONGEST = 40.0
"""Maximum lifetime of a driver in seconds; the demo takes longer even if nothing is killed."""


def test_demo_killed_five_times_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))
    moments = random.Random(20)

    def run(storage: str) -> Command:
        return Command(
            "run", DEMO, "--storage", tmp_path / storage, "--cache", tmp_path / "cache", temporary=temporary
        )  # fmt: skip

    undisturbed = run("whole")
    assert undisturbed.wait(PATIENCE) == 0, undisturbed.text
    published: dict[str, tuple[int, int]] = {}
    for _ in range(KILLS):
        driver = run("cut")
        time.sleep(moments.uniform(3.0, LONGEST))
        driver.send(signal.SIGKILL)
        now = histories(tmp_path / "cut")
        assert published.items() <= now.items()
        published = now
    last = run("cut")
    assert last.wait(PATIENCE) == 0, last.text

    assert published.items() <= histories(tmp_path / "cut").items()
    results = [pq.read_table(tmp_path / place / "studies" / "demo" / "results.parquet") for place in ("whole", "cut")]
    assert results[0].equals(results[1])
    assert not list((tmp_path / "cut").glob("work/*/*"))
    assert not list(temporary.glob("study-*"))
    shutil.rmtree(temporary)
