"""What a study's driver says of itself while it runs, so that anyone with the storage knows its state."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cluster.signals import Stopped, at_stop
from study.store.atomic import write_signed
from study.store.repeating import beating


@dataclass
class Heartbeat:
    """What is written of the driver; `state` is what it says at the end of the block."""

    file: Path
    told: Callable[[], dict[str, Any]]
    state: str = "interrupted"
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _ending: bool = field(default=False, init=False)

    def write(self, state: str) -> None:
        """Write `driver.json` with this state, the time, and what the driver tells."""
        with self._lock:
            self._ending |= state != "running"
            if state != "running" or not self._ending:  # a beat never follows the final state
                study = self.file.parent.name
                write_signed(self.file, {"study": study, "state": state, "time": time.time(), **self.told()})


@contextmanager
def heartbeat(file: Path, told: Callable[[], dict[str, Any]]) -> Iterator[Heartbeat]:
    """Write `driver.json` every few seconds, and the final state at the end."""
    heart = Heartbeat(file, told)
    heart.write("running")
    try:
        with beating(partial(heart.write, "running"), "heartbeat"), at_stop(heart.write):
            yield heart
    except Stopped:
        heart.state = "stopped"
        raise
    finally:
        heart.write(heart.state)
