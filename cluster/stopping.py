"""How a process ends when it is asked to: SIGTERM from a job's stop, a batch system or a person, or SIGINT.

Imports nothing heavy: a command can be stopped while it still imports the rest.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE_SECONDS = 3.0
"""For what runs to end by itself; a start of Ray, or a library that swallows the exception, may take longer."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """SIGTERM asked the process to end."""


class _Request:
    """Which signal asked the process to end, and the thread that sees to it."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.depth = 0
        self.ended = threading.Event()
        self.hooks: list[Callable[[str], None]] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:  # asked again: at once
            _end_now(self.number)
        self.number = number
        self.ended.clear()
        threading.Thread(target=self._see_to_it, args=(number,), daemon=True, name="stop").start()
        raise Stopped if number == signal.SIGTERM else KeyboardInterrupt

    def raise_again(self) -> None:
        """Raise what the handler raised: libraries swallow it, or turn it into an error of their own."""
        if self.number is not None:
            raise (Stopped if self.number == signal.SIGTERM else KeyboardInterrupt) from None

    def _see_to_it(self, number: int) -> None:
        for hook in tuple(self.hooks):
            with suppress(Exception):
                hook(_word(number))
        if not self.ended.wait(GRACE_SECONDS):
            _end_now(number)


_request = _Request()


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM and `KeyboardInterrupt` on SIGINT while the block lasts.

    A process that is still in the block `GRACE_SECONDS` later is ended, together with the processes it started: what
    is stored is whole at any time, as after a kill. So it is on a second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _request.handle) for number in SIGNALS}
    _request.depth += 1
    try:
        yield
        _request.raise_again()
    except BaseException:
        _request.raise_again()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _request.depth -= 1
        if not _request.depth:
            _request.ended.set()
            _request.number = None


@contextmanager
def at_stop(hook: Callable[[str], None]) -> Iterator[None]:
    """Call `hook` with "stopped" or "interrupted", in a thread, as soon as the process is asked to end in the block."""
    _request.hooks.append(hook)
    try:
        yield
    finally:
        _request.hooks.remove(hook)


def farewell(number: int) -> str:
    """Return what a command that a signal ended says."""
    return f"{_word(number)}; what is finished is kept, the same command goes on from there"


def _word(number: int) -> str:
    return "stopped" if number == signal.SIGTERM else "interrupted"


def _end_now(number: int) -> None:
    """End this process and all that it started, without any clean-up."""
    with suppress(Exception):
        shown = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a live view hides the cursor
        os.write(2, f"{shown}{farewell(number)}\n".encode())
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # other threads complain once Ray's processes are gone
    with suppress(Exception):
        import psutil

        children = psutil.Process().children(recursive=True)
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=1.0)
    os._exit(128 + number)
