"""State of a study, read from its storage."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.monitoring.eta import left_text, scores_text
from study.monitoring.rates import rate_text
from study.store.atomic import AlteredFileError
from study.store.documents import read_driver, read_failures, read_plan
from study.store.paths import PLAN
from study.store.store import Store

HEARTBEAT_TIMEOUT_SECONDS = 60.0
"""A driver without a heartbeat for this long is considered dead."""


def status(storage: Path, name: str) -> dict[str, Any]:
    """Return the state of a study as `status --json` prints it. Raises `AlteredFileError`."""
    store = Store(storage)
    store.pull(name)
    folder = store.study(name)
    plan, driver = read_plan(folder), read_driver(folder)
    if plan is None and driver is not None and driver["state"] != "running":
        raise AlteredFileError(str(folder / PLAN), "is missing")
    planned = plan["stages"].keys() if plan else frozenset()
    finished = len(store.finished() & planned)
    failures = read_failures(folder, driver)
    state = _state(driver, finished=bool(planned) and finished == len(planned), failed=bool(failures))
    alive = driver if driver and state == "running" else {}
    running = alive["stages"]["running"] if alive else 0
    waiting = max(len(planned) - finished - running - len(failures), 0)
    counts = {"total": len(planned), "finished": finished, "running": running, "waiting": waiting,
              "failed": len(failures)}  # fmt: skip
    return {
        "study": name,
        "state": state,
        "stages": counts,
        "running": alive.get("running", []),
        "images_per_second": alive.get("images_per_second"),
        "seconds_left": alive.get("seconds_left"),
        "searching": alive.get("searching", False),
        "failures": failures,
    }


def _state(driver: dict[str, Any] | None, *, finished: bool, failed: bool) -> str:
    if driver is None:
        return "finished" if finished else "planned"
    if driver["state"] == "running":
        # A time in the future means that the clock was set back since: the driver no longer runs.
        return "running" if abs(time.time() - driver["time"]) <= HEARTBEAT_TIMEOUT_SECONDS else "interrupted"
    return "failed" if failed else str(driver["state"])


def status_text(status: dict[str, Any]) -> str:
    """Return the status as text."""
    counts = status["stages"]
    lines = [
        f"{status['study']}: {status['state']}",
        "stages: " + ", ".join(f"{counts[key]} {key}" for key in ("total", "finished", "running", "waiting", "failed")),
    ]
    lines += [running_text(stage) for stage in status["running"]]
    if status["state"] == "running":
        images = status["images_per_second"]
        lines += [] if images is None else [f"rate: {images:.3g} images/s in all running stages"]
        lines.append(f"time left: {left_text(status['seconds_left'], searching=status['searching'])}")
    for failure in status["failures"]:
        lines.append(f"failed: {failure['stage']} {failure['digest'][:8]}: {failure['error'].partition(chr(10))[0]}")
    return "\n".join(lines)


def running_text(stage: Mapping[str, Any]) -> str:
    """Return a running stage of `StudyProgress.status` as text: epoch, rates, scores."""
    if stage["epoch"] is None:
        return f"running: {stage['label']}: its first epoch"
    rate = rate_text(stage.get("updates_per_second"), stage.get("images_per_second"))
    epoch = f"epoch {stage['epoch']:.0f} of {stage['epochs']:.0f}"
    return f"running: {stage['label']}: {'  '.join(filter(None, (epoch, rate, scores_text(stage['scores']))))}"
