"""How a driver is asked to end: SIGTERM, from a job's stop, a batch system, or a person."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """The process was asked to end."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM while the block lasts; without it Python would end at once, and Ray with a trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.set()
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        if asked.is_set():  # Ray's own calls raise a plain one, whatever the handler raised
            raise Stopped from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
