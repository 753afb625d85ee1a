"""Blocks that SIGTERM stops and SIGINT interrupts, also while libraries suppress the exception."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from cluster.signals import Stopped, on_stop, stoppable


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_stops_a_block() -> None:
    with pytest.raises(Stopped), stoppable():
        send_sigterm()


def test_stop_converted_to_another_error_by_a_library_is_raised() -> None:
    def library(error: type[BaseException]) -> None:
        try:
            send_sigterm()
        except Stopped:
            raise error from None

    for error in (KeyboardInterrupt, RuntimeError, SystemExit):
        with pytest.raises(Stopped), stoppable():
            library(error)


def test_stop_suppressed_by_a_library_is_raised_at_the_end_of_the_block() -> None:
    with pytest.raises(Stopped), stoppable(), contextlib.suppress(KeyboardInterrupt):
        send_sigterm()


def test_stop_discarded_in_a_weak_reference_callback_is_raised_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    class Target:
        pass

    def library() -> None:
        target = Target()
        reference = weakref.ref(target, lambda _: send_sigterm())
        del target
        assert reference() is None
        time.sleep(60)

    with pytest.raises(Stopped), stoppable():
        library()
    assert "Traceback" not in capfd.readouterr().err


DISCARDED = """
import os, signal, time, weakref
from cluster import signals

write = signals._Watcher._write

def slow_write(watcher, event):
    write(watcher, event)
    if event == signals._LOST:
        signals._Watcher._write = write
        time.sleep(0.3)  # the signal arrives again before the report of the discarded exception has ended

class Target:
    pass

with signals.stoppable():
    signals._Watcher._write = slow_write
    target = Target()
    reference = weakref.ref(target, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    try:
        del target
        time.sleep(60)
    except signals.Stopped:
        print("stopped", flush=True)
        os._exit(0)
"""


def test_second_stop_during_the_report_of_a_discarded_one_is_raised_after_it() -> None:
    result = subprocess.run([sys.executable, "-c", DISCARDED], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (0, "stopped\n"), result.stderr


def test_other_errors_of_a_destructor_are_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Target:
        def __del__(self) -> None:
            raise ValueError("of a destructor")

    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    with stoppable():
        Target()
    assert reported == [ValueError]


def test_interrupt_is_not_converted_to_a_stop() -> None:
    with pytest.raises(KeyboardInterrupt) as error, stoppable():
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(error.value, Stopped)


def test_stopped_block_can_be_entered_again() -> None:
    for _ in range(2):
        with pytest.raises(Stopped), stoppable():
            send_sigterm()
    with stoppable():
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_previous_signal_handler_is_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable():
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before


def test_hooks_are_called_before_a_stopped_block_ends() -> None:
    words: list[str] = []
    called = threading.Event()

    def hook(word: str) -> None:
        words.append(word)
        called.set()

    def wait_for_hook() -> None:
        try:
            send_sigterm()
        finally:
            assert called.wait(60)

    with pytest.raises(Stopped), stoppable(), on_stop(hook):
        wait_for_hook()
    assert words == ["stopped"]


UNRESPONSIVE = """
import signal, subprocess, sys, time
from cluster import signals
signals.GRACE_SECONDS = 0.2
with signals.stoppable():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    while True:
        try:
            print(child.pid, flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            pass  # as a library may do
"""


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGTERM, "stopped"), (signal.SIGINT, "interrupted")], ids=["SIGTERM", "SIGINT"]
)
def test_unresponsive_process_is_killed_with_its_children(number: signal.Signals, word: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", UNRESPONSIVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert stderr == f"{word}; finished stages are kept, the same command resumes\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
