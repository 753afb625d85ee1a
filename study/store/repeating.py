"""A call repeated by a thread while a block lasts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BEAT_SECONDS = 5.0


@contextmanager
def beating(beat: Callable[[], object], name: str, *, seconds: float | None = None) -> Iterator[None]:
    """Call `beat` every few `seconds` while the block lasts, the first time after one pause.

    A beat that the storage refuses is left out; the next one may do.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(BEAT_SECONDS if seconds is None else seconds):
            with suppress(OSError):
                beat()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
