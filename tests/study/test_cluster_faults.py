"""Random faults of a cluster during a study: it ends like an undisturbed study, and no work is repeated.

Times are random: each test prints its seed, and $STUDY_SEED sets it.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.store.store import WEIGHTS, Store
from tests.support.command import Command, Watch, histories
from tests.support.nodes import HOST, Nodes, cable, disk, fill, may_mount, nodes, plug, refuse_writes
from tests.support.tiny import tiny, written

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1200)]
as_root = pytest.mark.skipif(not may_mount(), reason="takes the right to mount disks and to lay networks")
STUDY = tiny({"compare.labelled_fraction": [0.5, 1.0], "compare.folds": 3, "stages.segment.steps": 32})
STAGES = 13
EARLY, LATE = 1.0, 12.0
"""Range in seconds after the first checkpoint in which a fault happens; the study takes half a minute or more."""
ABSENT = 15.0
"""Duration in seconds of a temporary fault; a head declares a node dead after five."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file, the cache of prepared images, and the results of an undisturbed run."""

    file: Path
    cache: Path
    results: pa.Table


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("undisturbed")
    file, storage, cache = written(STUDY, folder), folder / "runs", folder / "cache"
    command = Command("run", file, "--storage", storage, "--cache", cache, temporary=folder)
    assert command.wait() == 0, command.text
    return Study(file=file, cache=cache, results=_results(storage))


def _results(storage: Path) -> pa.Table:
    return pq.read_table(storage / "studies" / "tiny" / "results.parquet")


@dataclass(eq=False)
class Run:
    """One study on one cluster, with one fault."""

    study: Study
    nodes: Nodes
    storage: Path
    watch: Watch
    temporary: Path
    moments: random.Random
    began: float = field(default_factory=time.monotonic)
    commands: list[Command] = field(default_factory=list)
    published: dict[str, tuple[int, int]] = field(default_factory=dict)

    def start(self) -> Command:
        """Start a driver."""
        self.published = histories(self.storage)
        command = Command(
            "run", self.study.file, "--storage", self.storage, "--cache", self.study.cache,
            "--address", self.nodes.address, temporary=self.temporary,
        )  # fmt: skip
        self.commands.append(command)
        return command

    def start_until(self, late: float = LATE) -> Command:
        """Start a driver and return at a random time of its work."""
        command = self.start()
        command.until(lambda: self.watch.count)
        time.sleep(self.moments.uniform(EARLY, late))
        return command

    def end(self) -> None:
        """Wait for the last driver to finish the study."""
        assert self.commands[-1].wait() == 0, self.text

    @property
    def text(self) -> str:
        return "\n".join(f"--- driver {number}\n{command.text}" for number, command in enumerate(self.commands))

    def check(self, *, altered: frozenset[str] = frozenset()) -> None:
        """Check the final state of each study; stages in `altered` had to be trained again."""
        self._describe()
        store, final = Store(self.storage), histories(self.storage)
        assert len(final) == STAGES
        for digest in final:
            store.verify(digest)
        assert _results(self.storage).equals(self.study.results)
        again = {digest for digest, inodes in self.watch.published.items() if len(inodes) > 1}
        assert again <= altered
        assert {digest for digest, mark in self.published.items() if final[digest] != mark} <= altered
        assert not list(self.storage.glob("work/*/*")), list(self.storage.glob("work/*/*"))
        assert "Traceback" not in self.text, self.text

    def _describe(self) -> None:
        attempts = self.watch.attempts.values()
        epochs = [[epoch for stage_epochs in attempt.values() for epoch in stage_epochs] for attempt in attempts]
        sys.stdout.write(
            f"{time.monotonic() - self.began:.0f} s, drivers {len(self.commands)}, "
            f"stages started more than once {sum(len(attempt) > 1 for attempt in attempts)}, "
            f"epochs trained more than once {sum(len(numbers) - len(set(numbers)) for numbers in epochs)} "
            f"of {sum(len(set(numbers)) for numbers in epochs)}, "
            f"stages published more than once {sum(len(stages) > 1 for stages in self.watch.published.values())}\n"
        )


@pytest.fixture
def moments() -> random.Random:
    seed = int(os.environ.get("STUDY_SEED") or random.SystemRandom().randrange(10**6))
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for scratch files, with a path short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # Ray's processes live longer than a killed driver for a while


@pytest.fixture
def run(study: Study, tmp_path: Path, temporary: Path, moments: random.Random) -> Iterator[Run]:
    """A study on a head with one CPU core and two nodes with one more each."""
    storage = tmp_path / "disk" / "runs"
    with nodes(2) as cluster, Watch(storage) as watch:
        yield Run(study, cluster, storage, watch, temporary, moments)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The disk of a run's storage, with little more space than the study needs."""
    place = tmp_path / "disk"
    with disk(place, 512):
        yield place


def test_a_killed_trial_process_is_replaced(run: Run) -> None:
    driver = run.start_until()
    driver.until(lambda: list(run.storage.glob("work/*/claim.json")), may_end=True)
    killed = run.moments.choice(list(run.storage.glob("work/*/claim.json")))
    os.kill(json.loads(killed.read_text())["pid"], signal.SIGKILL)
    run.end()
    assert "its process was lost; it resumes from its last checkpoint" in run.text
    run.check()


def test_a_killed_node_is_replaced_by_a_joined_one(run: Run) -> None:
    run.start_until()
    run.nodes.kill("1")
    time.sleep(run.moments.uniform(0.0, 5.0))
    run.nodes.join()
    run.end()
    run.check()


def test_a_killed_driver_can_be_restarted(run: Run) -> None:
    assert run.start_until().send(signal.SIGKILL) == -signal.SIGKILL
    run.start()
    run.end()
    run.check()


def test_a_study_continues_on_a_new_cluster_after_its_head_was_killed(run: Run) -> None:
    driver = run.start_until()
    run.nodes.kill("0")
    assert driver.wait() not in (0, 2), driver.text
    run.nodes.end()
    run.nodes.head()
    run.nodes.join(count=2)
    run.start()
    run.end()
    run.check()


def test_two_drivers_can_run_one_study(run: Run) -> None:
    first = run.start_until(late=10.0)
    run.start()
    run.end()
    assert first.wait() == 0, run.text
    run.check()


def test_an_altered_weights_file_is_trained_again(run: Run) -> None:
    def parents() -> list[str]:
        store = Store(run.storage)
        return [digest for digest in histories(run.storage) if store.record(digest)["stage"] == "classify"]

    run.start().until(parents)
    (parent,) = parents()
    file = run.storage / "stages" / parent / WEIGHTS
    content = bytearray(file.read_bytes())
    content[run.moments.randrange(len(content))] ^= 1
    file.write_bytes(content)
    run.end()
    assert f"stage {parent}: {WEIGHTS} was altered after it was written" in run.text
    run.check(altered=frozenset({parent}))


@as_root
def test_a_temporarily_unwritable_storage_delays_the_study(small_disk: Path, run: Run) -> None:
    run.start_until()
    refuse_writes(small_disk, True)
    time.sleep(ABSENT)
    refuse_writes(small_disk, False)
    run.end()
    run.check()


@as_root
def test_a_temporarily_full_disk_delays_the_study(small_disk: Path, run: Run) -> None:
    run.start_until()
    filler = fill(small_disk)
    time.sleep(ABSENT)
    filler.unlink()
    run.end()
    run.check()


@as_root
def test_a_temporarily_disconnected_node_delays_the_study(
    study: Study, tmp_path: Path, temporary: Path, moments: random.Random
) -> None:
    storage = tmp_path / "runs"
    with cable(), nodes(0, ip=HOST) as cluster, Watch(storage) as watch:
        cluster.join_by_cable()
        run = Run(study, cluster, storage, watch, temporary, moments)
        run.start_until()
        plug(False)
        time.sleep(ABSENT)
        plug(True)
        run.end()
        run.check()
