"""What a study's driver says of itself while it runs, so that anyone with the storage knows its state."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from study.files import write_json

BEAT_SECONDS = 5.0


class Heartbeat:
    """Writes `driver.json` every few seconds, and the final state at the end."""

    def __init__(self, file: Path, counts: Callable[[], dict[str, int]]) -> None:
        self._file, self._counts = file, counts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.state = "interrupted"
        """What is written when the block ends."""

    def __enter__(self) -> Self:
        """Begin to beat."""
        self._write("running")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the final state."""
        self._stop.set()
        self._thread.join()
        self._write(self.state)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._write("running")

    def _write(self, state: str) -> None:
        beat: dict[str, Any] = {"state": state, "time": time.time(), "stages": self._counts()}
        write_json(self._file, beat)
