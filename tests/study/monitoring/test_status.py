"""The status of a study, from its folder and the heartbeat of its driver."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.signals import Stopped
from study.monitoring.heartbeat import heartbeat
from study.monitoring.status import HEARTBEAT_TIMEOUT_SECONDS, status, status_text
from study.store.atomic import write_signed
from study.store.paths import DRIVER, FAILURES, PLAN
from study.store.store import MANIFEST

STAGES = {"a" * 32: "classify", "b" * 32: "segment", "c" * 32: "segment"}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "studies" / "tiny"
    folder.mkdir(parents=True)
    (folder / PLAN).write_text(json.dumps({"stages": STAGES}))
    return tmp_path


def finish_stages(storage: Path, *digests: str) -> None:
    for digest in digests:
        (storage / "stages" / digest).mkdir(parents=True)
        (storage / "stages" / digest / MANIFEST).touch()


def write_heartbeat(storage: Path, state: str, *, age: float = 0.0, running: int = 0) -> None:
    content = {"state": state, "time": time.time() - age, "stages": {"running": running}}
    (storage / "studies" / "tiny" / DRIVER).write_text(json.dumps(content))


def write_failures(storage: Path, digest: str, *errors: str) -> None:
    lines = [json.dumps({"digest": digest, "stage": STAGES[digest], "error": error}) + "\n" for error in errors]
    (storage / "studies" / "tiny" / FAILURES).write_text("".join(lines))


def state_and_counts(storage: Path) -> tuple[str, dict[str, int]]:
    content: dict[str, Any] = status(storage, "tiny")
    return content["state"], content["stages"]


def test_study_that_never_ran_is_planned(storage: Path) -> None:
    assert state_and_counts(storage) == (
        "planned",
        {"total": 3, "finished": 0, "running": 0, "waiting": 3, "failed": 0},
    )


def test_study_with_all_stages_finished_elsewhere_is_finished(storage: Path) -> None:
    finish_stages(storage, *STAGES)

    assert state_and_counts(storage)[0] == "finished"


def test_study_with_a_recent_heartbeat_is_running(storage: Path) -> None:
    finish_stages(storage, "a" * 32)
    write_heartbeat(storage, "running", running=1)

    assert state_and_counts(storage) == (
        "running",
        {"total": 3, "finished": 1, "running": 1, "waiting": 1, "failed": 0},
    )


def test_study_with_an_old_heartbeat_is_interrupted(storage: Path) -> None:
    write_heartbeat(storage, "running", age=HEARTBEAT_TIMEOUT_SECONDS + 1, running=2)

    assert state_and_counts(storage) == (
        "interrupted",
        {"total": 3, "finished": 0, "running": 0, "waiting": 3, "failed": 0},
    )


def test_failures_are_counted_once_per_stage_and_listed(storage: Path) -> None:
    write_failures(storage, "a" * 32, "Diverged: first\ntraceback", "Diverged: second")
    write_heartbeat(storage, "failed")
    content = status(storage, "tiny")

    assert (content["state"], content["stages"]["failed"]) == ("failed", 1)
    assert content["failures"] == [{"digest": "a" * 32, "stage": "classify", "error": "Diverged: second"}]


def test_text_shows_the_first_line_of_an_error(storage: Path) -> None:
    write_failures(storage, "a" * 32, "Diverged: the loss is nan\nTraceback")
    write_heartbeat(storage, "failed")
    text = status_text(status(storage, "tiny"))

    assert "tiny: failed" in text
    assert "failed: classify aaaaaaaa: Diverged: the loss is nan" in text
    assert "Traceback" not in text


def running_status(storage: Path, **changes: object) -> dict[str, Any]:
    stage = {"digest": "b" * 32, "stage": "segment", "label": "segment unet seed 0 bbbbbbbb", "epoch": 3, "epochs": 10,
             "scores": {"train/loss": 0.25, "val/mean_iou": 0.5}}  # fmt: skip
    content = {"state": "running", "time": time.time(), "stages": {"running": 1}, "running": [stage],
               "seconds_left": 300.0, "searching": False}  # fmt: skip
    (storage / "studies" / "tiny" / DRIVER).write_text(json.dumps(content | changes))
    return status(storage, "tiny")


def test_text_shows_running_stages_and_the_remaining_time(storage: Path) -> None:
    lines = status_text(running_status(storage)).splitlines()

    assert lines[2:] == [
        "running: segment unet seed 0 bbbbbbbb: epoch 3 of 10  train/loss 0.250  val/mean_iou 0.500",
        "time left: about 5.0 min",
    ]


def test_text_shows_the_rates_of_each_stage_and_of_all(storage: Path) -> None:
    stage = {"digest": "b" * 32, "stage": "segment", "label": "segment seed 0", "epoch": 3, "epochs": 10, "updates": 60,
             "updates_per_second": 4.0, "images_per_second": 32.5, "scores": {"train/loss": 0.25}}  # fmt: skip
    content = {"state": "running", "time": time.time(), "stages": {"running": 1}, "running": [stage],
               "images_per_second": 65.0, "seconds_left": 300.0, "searching": False}  # fmt: skip
    write_signed(storage / "studies" / "tiny" / DRIVER, {"study": "tiny", **content})
    assert status_text(status(storage, "tiny")).splitlines()[2:4] == [
        "running: segment seed 0: epoch 3 of 10  4 updates/s, 32.5 images/s  train/loss 0.250",
        "rate: 65 images/s in all running stages",
    ]


def test_remaining_time_excludes_stages_added_by_the_search(storage: Path) -> None:
    assert "time left: about 5.0 min for the planned stages; the search adds more" in status_text(
        running_status(storage, searching=True)
    )


def test_interrupted_study_has_no_running_stages_and_no_remaining_time(storage: Path) -> None:
    content = running_status(storage, time=time.time() - HEARTBEAT_TIMEOUT_SECONDS - 1)

    assert (content["running"], content["seconds_left"]) == ([], None)
    assert "time left" not in status_text(content)


def read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_heartbeat_is_renewed_during_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.store.repeating.BEAT_SECONDS", 0.01)
    file = tmp_path / DRIVER
    with heartbeat(file, lambda: {"running": 1}):
        first, deadline = read_json(file), time.monotonic() + 10
        while read_json(file)["time"] == first["time"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_json(file)["time"] > first["time"]
        assert read_json(file)["state"] == "running"


def test_heartbeat_ends_with_the_state_set_by_the_driver(tmp_path: Path) -> None:
    with heartbeat(tmp_path / DRIVER, lambda: {}) as driver:
        driver.state = "finished"

    assert read_json(tmp_path / DRIVER)["state"] == "finished"


def test_heartbeat_ends_as_interrupted_after_keyboard_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), heartbeat(tmp_path / DRIVER, lambda: {}):
        raise KeyboardInterrupt

    assert read_json(tmp_path / DRIVER)["state"] == "interrupted"


def test_heartbeat_ends_as_stopped_after_a_stop(tmp_path: Path) -> None:
    with pytest.raises(Stopped), heartbeat(tmp_path / DRIVER, lambda: {}):
        raise Stopped

    assert read_json(tmp_path / DRIVER)["state"] == "stopped"


def test_study_without_a_plan_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "studies" / "early").mkdir(parents=True)
    assert status(tmp_path, "early")["state"] == "planned"
