"""A complete study on an object store: the values of a local folder, and no results lost with machines or the store."""

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from study.analysis.tables import write_outcome
from study.config.schema import Checkpoint
from study.planning.graph import Plan
from study.store.bucket_backend import create_mirror
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job
from study.training.train_stage import run_stage
from study.training.trainer import WorkerContext
from tests.support.command import Command
from tests.support.object_store import ObjectStore
from tests.support.searched import searched
from tests.support.tiny import planned, tiny, written

SHORT = {
    "stages.classify.epochs": 1,
    "stages.segment": {"task": "segmentation", "data": "hospital", "epochs": 1, "batch_size": 4},
    "pathways": {"one_step": ["classify", "segment"]},
    "compare.baseline": {"pathway": "one_step"},
}
LONGER = {"stages.segment.steps": 96}


def train(plan: Plan, store: Store, cache: Path) -> None:
    """Train the pending stages like the workers of one machine."""
    context = RuntimeContext(
        storage=store.root, origin=store.origin, cache=cache, cpus=1, checkpoint=Checkpoint(epochs=1, seconds=0)
    )
    for node in plan.nodes.values():
        run_stage(stage_job(plan, node), context, WorkerContext(report=lambda _: None))
    write_outcome(plan, store)


def test_stages_trained_on_two_machines_equal_those_in_a_folder(server: ObjectStore, tmp_path: Path) -> None:
    plan, cache = planned(tiny(SHORT), tmp_path / "cache"), tmp_path / "cache"
    local = Store(tmp_path / "runs")
    machines = [Store(create_mirror(server.uri("two-machines"), tmp_path / name)) for name in ("one", "two")]
    train(plan, local, cache)
    train(plan, machines[0], cache)
    before = server.keys("two-machines")
    train(plan, machines[1], cache)

    assert server.keys("two-machines") == before, "the second machine finds all of it done"
    assert not [key for key in before if key.startswith("work/")]
    for store in machines:
        for name in ("results.parquet", "comparisons.parquet", "tests.parquet"):
            mine, theirs = (pq.read_table(storage_of.study("tiny") / name) for storage_of in (store, local))
            assert mine.equals(theirs), name
    records = "".join(server.read(f"{'two-machines'}/{key}").decode() for key in before if key.endswith(".yaml"))
    assert "hidden-secret" not in records


@dataclass
class Machine:
    """A machine with its own cache, on which commands are run with the common storage."""

    server: ObjectStore
    prefix: str
    file: Path
    folder: Path
    temporary: Path

    def run(self, word: str = "run") -> Command:
        target = self.file if word == "run" else self.file.stem
        return Command(
            word, target, "--storage", self.server.uri(self.prefix), "--cache", self.folder, temporary=self.temporary
        )

    def output_of(self, *words: str) -> str:
        command = Command(*words, "--storage", self.server.uri(self.prefix), temporary=self.temporary)
        assert command.wait() == 0, command.text
        return command.text

    def another(self, name: str) -> "Machine":
        return Machine(self.server, self.prefix, self.file, self.folder.parent / name, self.temporary)

    @property
    def published(self) -> dict[str, int]:
        """Return when the history of each published stage was written: it changes when the stage is trained again."""
        keys = self.server.keys(f"{self.prefix}/stages")
        histories = {key: time for key, time in keys.items() if key.endswith("history.parquet")}
        return {key.split("/")[0]: time for key, time in histories.items() if f"{key.split('/')[0]}/seal.json" in keys}

    def values(self) -> list[dict[str, Any]]:
        content = self.server.read(f"{self.prefix}/studies/{self.file.stem}/results.parquet")
        place = self.folder.parent / "results.parquet"
        place.write_bytes(content)
        rows: list[dict[str, Any]] = pq.read_table(place).to_pylist()
        return rows


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for scratch files, with a path short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="o-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def machine(server: ObjectStore, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    return Machine(server, tmp_path.name, written(tiny(LONGER), tmp_path), tmp_path / "one", temporary)


def values_in_folder(machine: Machine) -> list[dict[str, Any]]:
    """The values of the same study in a local folder."""
    folder = machine.folder.parent / "runs"
    command = Command("run", machine.file, "--storage", folder, "--cache", machine.folder, temporary=machine.temporary)
    assert command.wait() == 0, command.text
    rows: list[dict[str, Any]] = pq.read_table(folder / "studies" / machine.file.stem / "results.parquet").to_pylist()
    return rows


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_killed_study_resumes_on_another_machine(machine: Machine) -> None:
    first = machine.run()
    first.until(lambda: machine.published)
    time.sleep(2.0)
    assert first.send(signal.SIGKILL) == -signal.SIGKILL
    time.sleep(15.0)  # workers of a killed driver end, or finish their work
    before, second = machine.published, machine.another("two")
    command = second.run("resume")

    assert command.wait() == 0, command.text
    assert before
    assert before.items() <= machine.published.items(), "no published stage is trained again"
    assert len(machine.published) == 5
    status = json.loads(machine.output_of("status", "tiny", "--json"))
    assert (status["state"], status["stages"]["finished"]) == ("finished", 5)
    assert "one_step" in machine.output_of("table", "tiny")
    assert machine.values() == values_in_folder(machine)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_unreachable_store_during_training_loses_nothing(machine: Machine) -> None:
    outages = 0

    def fail_often() -> None:
        nonlocal outages
        while not over.wait(6.0):
            machine.server.stop()
            time.sleep(5.0)
            machine.server.start()
            outages += 1

    over = threading.Event()
    command = machine.run()
    command.until(lambda: machine.server.keys(f"{machine.prefix}/studies"))
    thread = threading.Thread(target=fail_often)
    thread.start()
    try:
        status = command.wait()
    finally:
        over.set()
        thread.join()

    assert status == 0, command.text
    assert outages > 1
    assert command.text.count(" failed") == 0, command.text
    assert machine.values() == values_in_folder(machine)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_killed_search_ends_with_exactly_its_trials_on_another_machine(machine: Machine) -> None:
    machine.file = written(searched(), machine.file.parent)
    first = machine.run()
    journal = "studies/searched/search/journal.log"
    first.until(lambda: journal in machine.server.keys(machine.prefix) and machine.published)
    assert first.send(signal.SIGKILL) == -signal.SIGKILL
    time.sleep(15.0)
    before, second = machine.published, machine.another("two")
    command = second.run("resume")

    assert command.wait() == 0, command.text
    assert before.items() <= machine.published.items()
    rows = json.loads(machine.output_of("table", "searched", "--search", "--format", "json"))
    assert {row["state"] for row in rows} <= {"complete", "pruned", "failed"}
    for name in {row["search"] for row in rows}:
        assert [row["trial"] for row in rows if row["search"] == name] == [0, 1, 2]
    assert machine.values()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in first.text + command.text
