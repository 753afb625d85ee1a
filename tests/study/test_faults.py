"""Drivers and workers that end early: the same command resumes, trains nothing twice and gives the same results."""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.cli.main import main
from study.monitoring.status import status
from study.store.store import WEIGHTS, Store
from tests.support.command import Command, Watch, histories, raylets_of
from tests.support.pictures import picture, save
from tests.support.tiny import tiny, written

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
NOISE = ("Traceback", "raylet", "WARNING", "ERROR", "Aborted", "ray.")
"""Text that must never be printed on the terminal."""
LONGER = {"stages.segment.steps": 96}
"""Long enough that a driver ended early leaves unfinished stages even on a fast machine."""


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A folder for scratch files, with a path short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A study file, a storage, a cache of prepared images and scratch files."""

    file: Path
    storage: Path
    cache: Path
    temporary: Path

    def run(self, *, terminal: bool = False) -> Command:
        return Command(
            "run", self.file, "--storage", self.storage, "--cache", self.cache,
            temporary=self.temporary, terminal=terminal,
        )  # fmt: skip

    def results(self) -> pa.Table:
        return pq.read_table(self.storage / "studies" / "tiny" / "results.parquet")

    def status(self) -> dict[str, Any]:
        return status(self.storage, "tiny")


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    place: Place
    exit_status: int
    text: str
    results: pa.Table
    status: dict[str, Any]
    histories: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    place = Place(
        file=written(tiny(LONGER), folder), storage=folder / "runs", cache=folder / "cache", temporary=temporary
    )  # fmt: skip
    command = place.run()
    exit_status = command.wait()
    assert exit_status == 0, command.text
    return Undisturbed(
        place=place, exit_status=exit_status, text=command.text, results=place.results(), status=place.status(),
        histories=histories(place.storage),
    )  # fmt: skip


def copy_to(undisturbed: Undisturbed, folder: Path) -> Place:
    place = undisturbed.place
    return Place(file=place.file, storage=folder / "runs", cache=place.cache, temporary=place.temporary)


def test_driver_ended_while_reading_new_data_stops_its_cluster(temporary: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    save(picture(0, width=2048, height=2048), root / "images" / "0.png")
    save(np.ones((2048, 2048), np.uint8), root / "masks" / "0.png")
    for path in (root / "images" / "0.png", root / "masks" / "0.png"):
        for number in range(1, 1500):  # many links to one file: reading them takes longer than the start of Ray
            os.link(path, path.with_name(f"{number}.png"))
    file = written(tiny({"data.hospital": {"source": "folder", "root": str(root)}}), tmp_path)
    place = Place(file=file, storage=tmp_path / "runs", cache=tmp_path / "cache", temporary=temporary)

    command = place.run()
    driver = psutil.Process(command.process.pid)
    command.until(lambda: raylets_of(driver))
    raylets = raylets_of(driver)
    assert command.send(signal.SIGTERM) == 143, command.text
    assert raylets
    assert not any(raylet.is_running() for raylet in raylets)
    assert not (place.storage / "studies").exists()


def test_undisturbed_study_is_finished(undisturbed: Undisturbed) -> None:
    counts = {"total": 5, "finished": 5, "running": 0, "waiting": 0, "failed": 0}

    expected = {"study": "tiny", "state": "finished", "stages": counts, "failures": []}
    assert undisturbed.status | expected == undisturbed.status


def test_pipe_gets_plain_lines(undisturbed: Undisturbed) -> None:
    assert "[5/5] " in undisturbed.text
    assert "\x1b" not in undisturbed.text
    assert not [word for word in NOISE if word in undisturbed.text]


@pytest.mark.parametrize("format_", ["md", "csv", "json", "latex", "html"])
def test_table_in_every_format(undisturbed: Undisturbed, format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["table", "tiny", "--format", format_, "--storage", str(undisturbed.place.storage)])
    output = capsys.readouterr().out

    assert ended.value.code == 0
    assert "one_step" in output or "one\\_step" in output
    if format_ == "json":
        assert {"metric", "mean", "ci_low", "ci_high", "n", "difference", "p", "p_adjusted", "note"} <= set(
            json.loads(output)[0]
        )


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    place: Place
    watch: Watch
    killed: str
    """Digest of the stage whose process was killed."""
    texts: list[str]
    exits: list[int]
    running: dict[str, Any]
    interrupted: dict[str, Any]
    at_kills: list[dict[str, tuple[int, int]]]
    """Published stages at the time a driver was ended."""


@pytest.fixture(scope="module")
def disturbed(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    """Disturb the study; repeat if it finished before a signal arrived, as on a busy machine."""
    for number in range(3):
        disturbed_run = disturb(copy_to(undisturbed, tmp_path_factory.mktemp(f"disturbed-{number}")))
        if disturbed_run.exits[0] != 0 and -signal.SIGKILL in disturbed_run.exits:
            break
    return disturbed_run


def disturb(place: Place) -> Disturbed:
    """Kill a trial's process, interrupt the driver once and kill it twice, then let it finish."""
    with Watch(place.storage) as watch:
        first = place.run(terminal=True)
        first.until(lambda: watch.count)
        killed = next(iter(watch.attempts))
        lease = json.loads((Store(place.storage).work(killed) / "claim.json").read_text())
        os.kill(lease["pid"], signal.SIGKILL)
        first.until(lambda: "its process was lost" in first.text)
        first.until(lambda: watch.published)
        running = place.status()
        commands, exits, at_kills = [first], [first.send(signal.SIGINT)], [histories(place.storage)]
        interrupted = place.status()
        for pause in (0.0, 0.7):
            before = watch.count
            command = place.run()
            # Processes of a killed driver live on for a while and may finish their work.
            command.until(lambda before=before: watch.count > before, may_end=True)
            time.sleep(pause)
            exits.append(command.send(signal.SIGKILL))
            at_kills.append(histories(place.storage))
            commands.append(command)
        last = place.run()
        exits.append(last.wait())
        commands.append(last)
    return Disturbed(
        place=place, watch=watch, killed=killed, texts=[command.text for command in commands], exits=exits,
        running=running, interrupted=interrupted, at_kills=at_kills,
    )  # fmt: skip


def test_interrupted_driver_prints_a_message_and_the_last_one_succeeds(disturbed: Disturbed) -> None:
    first, *killed, last = disturbed.exits
    assert (first, last) == (130, 0), disturbed.texts
    assert -signal.SIGKILL in killed
    assert set(killed) <= {-signal.SIGKILL, 0}
    assert "interrupted; finished stages are kept, the same command resumes" in disturbed.texts[0]


def test_status_is_updated(disturbed: Disturbed) -> None:
    assert disturbed.running["state"] == "running"
    assert disturbed.running["stages"]["finished"] >= 1
    assert disturbed.interrupted["state"] == "interrupted"
    assert disturbed.place.status()["state"] == "finished"
    for reported in (disturbed.running, disturbed.interrupted):
        counts = dict(reported["stages"])
        assert counts.pop("total") == sum(counts.values()) == 5


def test_lost_process_is_one_line_on_a_terminal(disturbed: Disturbed) -> None:
    assert disturbed.texts[0].count("its process was lost; it resumes from its last checkpoint") == 1
    assert not [word for word in NOISE if word in "".join(disturbed.texts)]


def test_stage_of_a_killed_process_resumes_from_its_checkpoint(disturbed: Disturbed) -> None:
    before, after, *_ = disturbed.watch.attempts[disturbed.killed].values()

    assert min(after) > max(before)


def test_no_epoch_before_a_checkpoint_is_trained_again(disturbed: Disturbed) -> None:
    for digest, attempts in disturbed.watch.attempts.items():
        epochs = [epoch for epochs_of_attempt in attempts.values() for epoch in epochs_of_attempt]
        assert epochs == sorted(set(epochs)), digest


def test_published_stage_is_never_trained_again(disturbed: Disturbed) -> None:
    final = histories(disturbed.place.storage)

    assert len(final) == 5
    assert all(len(inodes) == 1 for inodes in disturbed.watch.published.values())
    for published in disturbed.at_kills:
        assert published.items() <= final.items()


def test_results_equal_those_of_an_undisturbed_run(undisturbed: Undisturbed, disturbed: Disturbed) -> None:
    assert disturbed.place.results().equals(undisturbed.results)


def test_no_work_and_no_scratch_folders_remain(disturbed: Disturbed, temporary: Path) -> None:
    assert not list(disturbed.place.storage.glob("work/*/*"))
    assert not list(temporary.glob("study-*"))


def test_two_drivers_share_one_storage(undisturbed: Undisturbed, tmp_path: Path) -> None:
    place = copy_to(undisturbed, tmp_path)
    with Watch(place.storage) as watch:
        commands = [place.run(), place.run()]
        exits = [command.wait() for command in commands]

    assert exits == [0, 0], [command.text for command in commands]
    assert {digest: len(inodes) for digest, inodes in watch.published.items()} == dict.fromkeys(
        undisturbed.histories, 1
    )
    assert all(len(attempts) == 1 for attempts in watch.attempts.values())
    assert place.results().equals(undisturbed.results)
    assert place.status()["state"] == "finished"


@dataclass(frozen=True, kw_only=True)
class Extended:
    place: Place
    exit_status: int
    text: str
    damaged: set[str]


@pytest.fixture(scope="module")
def extended(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Extended:
    """The finished study with two damaged stages, run again with one more fraction and a stage that diverges."""
    storage = undisturbed.place.storage
    weights = sorted(storage.glob(f"stages/*/{WEIGHTS}"))
    parents = {Store(storage).record(digest)["parent"] for digest in undisturbed.histories}
    parent = next(file for file in weights if file.parent.name in parents)
    target = next(file for file in weights if file.parent.name not in parents)
    content = bytearray(parent.read_bytes())
    content[len(content) // 2] ^= 1
    parent.write_bytes(content)
    os.truncate(target, 1000)
    changes = LONGER | {
        "compare.labelled_fraction": [0.5, 1.0],
        "stages.broken": {"task": "classification", "data": "clinic", "epochs": 1, "optimizer": {"lr": 1e30}},
        "pathways.broken": ["broken", "segment"],
    }
    place = Place(
        file=written(tiny(changes), tmp_path_factory.mktemp("extended")), storage=storage,
        cache=undisturbed.place.cache, temporary=undisturbed.place.temporary,
    )  # fmt: skip
    command = place.run()
    damaged = {parent.parent.name, target.parent.name}
    return Extended(place=place, exit_status=command.wait(), text=command.text, damaged=damaged)


def test_failing_stage_is_listed_and_the_others_are_finished(extended: Extended) -> None:
    assert extended.exit_status == 1, extended.text
    assert "failed: broken " in extended.text
    assert "the training loss is " in extended.text
    assert "not run: 4 stages that start from failed ones" in extended.text
    assert not [word for word in NOISE if word in extended.text]


def test_status_of_a_failed_study_contains_the_error(extended: Extended) -> None:
    reported = extended.place.status()

    assert reported["state"] == "failed"
    assert reported["stages"] == {"total": 14, "finished": 9, "running": 0, "waiting": 4, "failed": 1}
    assert [failure["stage"] for failure in reported["failures"]] == ["broken"]
    assert reported["failures"][0]["error"].startswith("Diverged: the training loss is ")


def test_damaged_stages_are_reported_and_trained_again(undisturbed: Undisturbed, extended: Extended) -> None:
    final = histories(extended.place.storage)
    for digest in extended.damaged:
        assert f"stage {digest}: {WEIGHTS} " in extended.text
        assert final[digest] != undisturbed.histories[digest]
        Store(extended.place.storage).verify(digest)


def test_an_extended_study_trains_only_new_stages(undisturbed: Undisturbed, extended: Extended) -> None:
    final = histories(extended.place.storage)
    sound = {digest: mark for digest, mark in undisturbed.histories.items() if digest not in extended.damaged}

    assert len(final) == 9
    assert sound.items() <= final.items()
    assert "[6/" in extended.text, "four new stages and two damaged ones"
    assert "[7/" not in extended.text


def test_results_of_a_damaged_study_are_restored(undisturbed: Undisturbed, extended: Extended) -> None:
    before = undisturbed.results.to_pylist()
    after = [row for row in extended.place.results().to_pylist() if row["labelled_fraction"] == 1.0]

    assert sorted(map(repr, after)) == sorted(map(repr, before))
