"""What a study's driver says of itself while it runs, so that anyone with the storage knows its state."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster.stopping import Stopped
from study.beat import beating
from study.files import write_json


@dataclass
class Heartbeat:
    """What is written of the driver; `state` is what it says at the end of the block."""

    file: Path
    told: Callable[[], dict[str, Any]]
    state: str = "interrupted"

    def write(self, state: str) -> None:
        """Write `driver.json` with this state, the time, and what the driver tells."""
        write_json(self.file, {"state": state, "time": time.time(), **self.told()})


@contextmanager
def heartbeat(file: Path, told: Callable[[], dict[str, Any]]) -> Iterator[Heartbeat]:
    """Write `driver.json` every few seconds, and the final state at the end."""
    heart = Heartbeat(file, told)
    heart.write("running")
    try:
        with beating(partial(heart.write, "running"), "heartbeat"):
            yield heart
    except Stopped:
        heart.state = "stopped"
        raise
    finally:
        heart.write(heart.state)
