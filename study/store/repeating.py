"""Periodic calls in a background thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BEAT_SECONDS = 5.0


@contextmanager
def call_periodically(call: Callable[[], object], name: str, *, seconds: float | None = None) -> Iterator[None]:
    """Call a function every `seconds` during the block, first after one interval. `OSError` is ignored."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(BEAT_SECONDS if seconds is None else seconds):
            with suppress(OSError):
                call()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
