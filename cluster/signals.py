"""Graceful shutdown on SIGTERM (a stopped job, a batch system, a user) and SIGINT.

Imports nothing heavy, so that a command can be stopped while it still imports the rest.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE_SECONDS = 3.0
"""Time to clean up before the process is killed: starting Ray, or a library that swallows the exception, may hang."""
LOST_SECONDS = 0.01
"""Time before a signal whose exception was discarded is delivered again."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """Raised on SIGTERM."""


class _Watcher:
    """Background thread that kills the process if it has not ended `GRACE_SECONDS` after a signal.

    The thread starts before any signal can arrive: starting a thread or taking a lock in a signal handler may deadlock
    with the interrupted code. The handler only writes to a pipe.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The received signal."""
        self.hooks: list[Callable[[str], None]] = []
        self.depth = 0
        self._pipe: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._lost = False
        self._report_unraisable = sys.unraisablehook

    def start(self) -> None:
        self.number = None
        self._lost = False
        self._report_unraisable, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._pipe = os.pipe()
        self._thread = threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True, name="signals")
        self._thread.start()

    def stop(self) -> None:
        if self._pipe is None or self._thread is None:
            return
        reader, writer = self._pipe
        os.write(writer, _END)
        self._thread.join(GRACE_SECONDS)  # a hook may still run
        self.number = self._pipe = self._thread = None
        sys.unraisablehook = self._report_unraisable
        os.close(writer)
        os.close(reader)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._lost:
            if self._is_reporting(frame):  # an exception would be discarded here as well
                self._write(_LOST)
                return
            self._lost = False
        elif self.number is not None:  # the second one: end at once
            _end_now(self.number)
        else:
            self.number = number
            self._write(_SIGNAL)
        self.raise_again()

    def raise_again(self) -> None:
        """Raise the handler's exception again: libraries may swallow it or convert it into their own error."""
        if self.number is not None:
            raise (Stopped if self.number == signal.SIGTERM else KeyboardInterrupt) from None

    def _unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Deliver the signal again if its exception was raised in a destructor or a callback, which discard it."""
        if self.number is not None and issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._lost = True
            self._write(_LOST)
        else:
            self._report_unraisable(unraisable)

    def _is_reporting(self, frame: FrameType | None) -> bool:
        """Return whether a frame is called by `_unraisable`."""
        while frame is not None and frame.f_code is not _Watcher._unraisable.__code__:
            frame = frame.f_back
        return frame is not None

    def _write(self, event: bytes) -> None:
        if self._pipe is not None:
            os.write(self._pipe[1], event)

    def _watch(self, reader: int) -> None:
        main = threading.main_thread().ident
        number = self.number if os.read(reader, 1) == _SIGNAL else None
        if number is None or main is None:
            return
        end = time.monotonic() + GRACE_SECONDS
        for hook in tuple(self.hooks):
            with suppress(Exception):
                hook(_status_word(number))
        while select.select([reader], [], [], max(end - time.monotonic(), 0.0))[0]:
            if os.read(reader, 1) == _END:
                return
            time.sleep(LOST_SECONDS)  # the main thread leaves what discarded the exception
            signal.pthread_kill(main, number)
        _end_now(number)


_SIGNAL, _LOST, _END = b"s", b"l", b"e"
_watcher = _Watcher()


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM and `KeyboardInterrupt` on SIGINT while the block lasts.

    A process that is still in the block `GRACE_SECONDS` later, or receives a second signal, is killed together with its
    child processes. Stored files are complete at any time, so this is safe.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _watcher.depth:
        _watcher.start()
    before = {number: signal.signal(number, _watcher.handle) for number in SIGNALS}
    _watcher.depth += 1
    try:
        yield
        _watcher.raise_again()
    except BaseException:
        _watcher.raise_again()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _watcher.depth -= 1
        if not _watcher.depth:
            _watcher.stop()


@contextmanager
def on_stop(hook: Callable[[str], None]) -> Iterator[None]:
    """Call `hook` with "stopped" or "interrupted", in a thread, as soon as a signal arrives in the block."""
    _watcher.hooks.append(hook)
    try:
        yield
    finally:
        _watcher.hooks.remove(hook)


def stop_message(number: int) -> str:
    """Return the message that a command prints when a signal ended it."""
    return f"{_status_word(number)}; finished stages are kept, the same command resumes"


def _status_word(number: int) -> str:
    return "stopped" if number == signal.SIGTERM else "interrupted"


def _end_now(number: int) -> None:
    """Kill this process and its child processes without clean-up."""
    with suppress(Exception):
        shown = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a live view hides the cursor
        os.write(2, f"{shown}{stop_message(number)}\n".encode())
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # other threads print errors once Ray's processes are gone
    with suppress(Exception):
        import psutil

        children = psutil.Process().children(recursive=True)
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=1.0)
    os._exit(128 + number)
