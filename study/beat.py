"""A call repeated by a thread while a block lasts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BEAT_SECONDS = 5.0


@contextmanager
def beating(beat: Callable[[], None], name: str) -> Iterator[None]:
    """Call `beat` every few seconds, at last before the block ends; the first time after one pause."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(BEAT_SECONDS):
            beat()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
