"""Heartbeat of a study's driver in the storage, from which others read its state."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cluster.signals import Stopped, on_stop
from study.store.atomic import write_signed
from study.store.repeating import call_periodically


@dataclass
class Heartbeat:
    """Writes `driver.json`.

    Attributes:
        status: Returns the progress to write.
        state: The final state, written at the end of the block.
    """

    file: Path
    status: Callable[[], dict[str, Any]]
    state: str = "interrupted"
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _ending: bool = field(default=False, init=False)

    def write(self, state: str) -> None:
        """Write `driver.json` with this state, the time and the progress."""
        with self._lock:
            self._ending |= state != "running"
            if state != "running" or not self._ending:  # no heartbeat may overwrite the final state
                study = self.file.parent.name
                write_signed(self.file, {"study": study, "state": state, "time": time.time(), **self.status()})


@contextmanager
def heartbeat(file: Path, status: Callable[[], dict[str, Any]]) -> Iterator[Heartbeat]:
    """Write `driver.json` every few seconds, and the final state at the end."""
    writer = Heartbeat(file, status)
    writer.write("running")
    try:
        with call_periodically(partial(writer.write, "running"), "heartbeat"), on_stop(writer.write):
            yield writer
    except Stopped:
        writer.state = "stopped"
        raise
    finally:
        writer.write(writer.state)
