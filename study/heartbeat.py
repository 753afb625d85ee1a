"""What a study's driver says of itself while it runs, so that anyone with the storage knows its state."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from study.beat import beating
from study.files import write_json


@dataclass
class Heartbeat:
    """What is written of the driver; `state` is what it says at the end of the block."""

    file: Path
    counts: Callable[[], dict[str, int]]
    state: str = "interrupted"

    def write(self, state: str) -> None:
        """Write `driver.json` with this state and the time."""
        beat: dict[str, Any] = {"state": state, "time": time.time(), "stages": self.counts()}
        write_json(self.file, beat)


@contextmanager
def heartbeat(file: Path, counts: Callable[[], dict[str, int]]) -> Iterator[Heartbeat]:
    """Write `driver.json` every few seconds, and the final state at the end."""
    heart = Heartbeat(file, counts)
    heart.write("running")
    try:
        with beating(partial(heart.write, "running"), "heartbeat"):
            yield heart
    finally:
        heart.write(heart.state)
