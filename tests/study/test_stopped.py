"""A command stopped at any moment prints one line; a study resumes from its last checkpoint."""

import signal
import time
from pathlib import Path

import pytest

from cluster.signals import stop_message
from study.monitoring.status import status
from tests.support.command import Command, Watch
from tests.support.tiny import tiny, written

MOMENTS = (0.3, 0.8, 1.5, 3.0, 6.0)
"""Seconds after the start: imports, planning, start of Ray, training."""
BEFORE_IMPORTS = 0.05
"""Seconds after the start at which Python has not yet installed any of our handlers."""


def run(folder: Path, changes: dict[str, object] | None = None) -> Command:
    file = written(tiny(changes), folder)
    return Command("run", file, "--storage", folder / "runs", "--cache", folder / "cache", temporary=folder)


def ends_at_once(folder: Path, number: signal.Signals, seconds: float) -> None:
    command = run(folder, {"stages.classify.epochs": 400, "stages.segment.steps": 4000})
    time.sleep(seconds)
    assert command.send(number) == 128 + number, command.text
    lines = command.text.splitlines()
    assert lines[-1:] == [stop_message(number)]
    assert command.text.count(stop_message(number)) == 1
    assert "Traceback" not in command.text
    if (folder / "runs" / "studies").exists():
        assert status(folder / "runs", "tiny")["state"] in ("planned", "stopped", "interrupted")


@pytest.mark.cluster
@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.8), (signal.SIGTERM, 0.3), (signal.SIGTERM, 3.0)])
def test_command_ends_at_once(number: signal.Signals, seconds: float, tmp_path: Path) -> None:
    ends_at_once(tmp_path, number, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seconds", MOMENTS)
def test_command_ends_at_once_at_any_moment(number: signal.Signals, seconds: float, tmp_path: Path) -> None:
    ends_at_once(tmp_path, number, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_stopped_while_python_starts_writes_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = run(tmp_path)
    time.sleep(BEFORE_IMPORTS)
    assert command.send(number) in (128 + number, -number, 1)  # Python itself may handle the signal
    assert not (tmp_path / "runs").exists()


@pytest.mark.cluster
def test_stopped_study_reports_it_and_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    with Watch(tmp_path / "runs") as watch:
        command = run(tmp_path)
        command.until(lambda: any(len(epochs) > 2 for work in watch.attempts.values() for epochs in work.values()))
        assert command.send(signal.SIGTERM) == 143, command.text
        assert status(tmp_path / "runs", "tiny")["state"] == "stopped"
        assert run(tmp_path).wait() == 0
    for work in watch.attempts.values():
        epochs = [epoch for attempt in work.values() for epoch in attempt]
        assert len(set(epochs)) == len(epochs)
    assert status(tmp_path / "runs", "tiny")["state"] == "finished"
