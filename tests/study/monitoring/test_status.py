import json
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.signals import Stopped
from study.monitoring.heartbeat import heartbeat
from study.monitoring.status import HEARTBEAT_TIMEOUT_SECONDS, status, status_text
from study.store.paths import DRIVER, FAILURES, PLAN
from study.store.store import MANIFEST

STAGES = {"a" * 32: "classify", "b" * 32: "segment", "c" * 32: "segment"}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "studies" / "tiny"
    folder.mkdir(parents=True)
    (folder / PLAN).write_text(json.dumps({"stages": STAGES}))
    return tmp_path


def finish(storage: Path, *digests: str) -> None:
    for digest in digests:
        (storage / "stages" / digest).mkdir(parents=True)
        (storage / "stages" / digest / MANIFEST).touch()


def beat(storage: Path, state: str, *, ago: float = 0.0, running: int = 0) -> None:
    content = {"state": state, "time": time.time() - ago, "stages": {"running": running}}
    (storage / "studies" / "tiny" / DRIVER).write_text(json.dumps(content))


def fail(storage: Path, digest: str, *errors: str) -> None:
    lines = [json.dumps({"digest": digest, "stage": STAGES[digest], "error": error}) + "\n" for error in errors]
    (storage / "studies" / "tiny" / FAILURES).write_text("".join(lines))


def told(storage: Path) -> tuple[str, dict[str, int]]:
    found: dict[str, Any] = status(storage, "tiny")
    return found["state"], found["stages"]


def test_study_that_never_ran_is_planned(storage: Path) -> None:
    assert told(storage) == ("planned", {"total": 3, "finished": 0, "running": 0, "waiting": 3, "failed": 0})


def test_study_whose_stages_others_finished_is_finished(storage: Path) -> None:
    finish(storage, *STAGES)

    assert told(storage)[0] == "finished"


def test_study_with_a_fresh_beat_is_running(storage: Path) -> None:
    finish(storage, "a" * 32)
    beat(storage, "running", running=1)

    assert told(storage) == ("running", {"total": 3, "finished": 1, "running": 1, "waiting": 1, "failed": 0})


def test_study_whose_driver_fell_silent_is_interrupted(storage: Path) -> None:
    beat(storage, "running", ago=HEARTBEAT_TIMEOUT_SECONDS + 1, running=2)

    assert told(storage) == ("interrupted", {"total": 3, "finished": 0, "running": 0, "waiting": 3, "failed": 0})


def test_failures_are_counted_once_and_listed(storage: Path) -> None:
    fail(storage, "a" * 32, "Diverged: first\ntraceback", "Diverged: second")
    beat(storage, "failed")
    found = status(storage, "tiny")

    assert (found["state"], found["stages"]["failed"]) == ("failed", 1)
    assert found["failures"] == [{"digest": "a" * 32, "stage": "classify", "error": "Diverged: second"}]


def test_text_shows_the_first_line_of_an_error(storage: Path) -> None:
    fail(storage, "a" * 32, "Diverged: the loss is nan\nTraceback")
    beat(storage, "failed")
    text = status_text(status(storage, "tiny"))

    assert "tiny: failed" in text
    assert "failed: classify aaaaaaaa: Diverged: the loss is nan" in text
    assert "Traceback" not in text


def live(storage: Path, **changes: object) -> dict[str, Any]:
    stage = {"digest": "b" * 32, "stage": "segment", "label": "segment unet seed 0 bbbbbbbb", "epoch": 3, "epochs": 10,
             "scores": {"train/loss": 0.25, "val/mean_iou": 0.5}}  # fmt: skip
    content = {"state": "running", "time": time.time(), "stages": {"running": 1}, "running": [stage],
               "seconds_left": 300.0, "searching": False}  # fmt: skip
    (storage / "studies" / "tiny" / DRIVER).write_text(json.dumps(content | changes))
    return status(storage, "tiny")


def test_running_stages_are_shown_with_epoch_loss_and_score_and_the_time_left(storage: Path) -> None:
    lines = status_text(live(storage)).splitlines()

    assert lines[2:] == [
        "running: segment unet seed 0 bbbbbbbb: epoch 3 of 10  train/loss 0.250  val/mean_iou 0.500",
        "time left: about 5.0 min",
    ]


def test_time_left_of_a_search_is_no_promise(storage: Path) -> None:
    assert "time left: about 5.0 min for the planned stages; the search adds more" in status_text(
        live(storage, searching=True)
    )


def test_driver_that_fell_silent_has_no_running_stages_and_no_time_left(storage: Path) -> None:
    found = live(storage, time=time.time() - HEARTBEAT_TIMEOUT_SECONDS - 1)

    assert (found["running"], found["seconds_left"]) == ([], None)
    assert "time left" not in status_text(found)


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_heartbeat_beats_while_the_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.store.repeating.BEAT_SECONDS", 0.01)
    file = tmp_path / DRIVER
    with heartbeat(file, lambda: {"running": 1}):
        first, deadline = read(file), time.monotonic() + 10
        while read(file)["time"] == first["time"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read(file)["time"] > first["time"]
        assert read(file)["state"] == "running"


def test_heartbeat_ends_with_the_state_it_was_given(tmp_path: Path) -> None:
    with heartbeat(tmp_path / DRIVER, lambda: {}) as driver:
        driver.state = "finished"

    assert read(tmp_path / DRIVER)["state"] == "finished"


def test_heartbeat_that_is_cut_short_says_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), heartbeat(tmp_path / DRIVER, lambda: {}):
        raise KeyboardInterrupt

    assert read(tmp_path / DRIVER)["state"] == "interrupted"


def test_heartbeat_that_is_stopped_says_so(tmp_path: Path) -> None:
    with pytest.raises(Stopped), heartbeat(tmp_path / DRIVER, lambda: {}):
        raise Stopped

    assert read(tmp_path / DRIVER)["state"] == "stopped"


def test_a_study_that_was_stopped_before_it_was_planned_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "studies" / "early").mkdir(parents=True)
    assert status(tmp_path, "early")["state"] == "planned"
