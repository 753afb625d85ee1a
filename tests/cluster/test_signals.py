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


def asked_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_stops_a_block() -> None:
    with pytest.raises(Stopped), stoppable():
        asked_to_end()


def test_stop_that_a_library_turned_into_another_error_is_a_stop() -> None:
    def library(error: type[BaseException]) -> None:
        try:
            asked_to_end()
        except Stopped:
            raise error from None

    for error in (KeyboardInterrupt, RuntimeError, SystemExit):
        with pytest.raises(Stopped), stoppable():
            library(error)


def test_stop_that_a_library_swallowed_is_raised_at_the_end_of_the_block() -> None:
    with pytest.raises(Stopped), stoppable(), contextlib.suppress(KeyboardInterrupt):
        asked_to_end()


def test_stop_that_a_weak_reference_callback_discarded_is_raised_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    class Target:
        pass

    def library() -> None:
        target = Target()
        reference = weakref.ref(target, lambda _: asked_to_end())
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


def test_stop_that_arrives_again_while_its_discarded_exception_is_reported_is_raised_after_it() -> None:
    ended = subprocess.run([sys.executable, "-c", DISCARDED], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr


def test_other_errors_of_a_destructor_are_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Target:
        def __del__(self) -> None:
            raise ValueError("of a destructor")

    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    with stoppable():
        Target()
    assert reported == [ValueError]


def test_interrupt_of_a_block_is_no_stop() -> None:
    with pytest.raises(KeyboardInterrupt) as ended, stoppable():
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(ended.value, Stopped)


def test_a_stopped_block_can_be_entered_again() -> None:
    for _ in range(2):
        with pytest.raises(Stopped), stoppable():
            asked_to_end()
    with stoppable():
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_handler_of_before_is_back_after_the_block(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable():
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before


def test_hooks_learn_of_a_stop_before_the_block_has_ended() -> None:
    told: list[str] = []
    called = threading.Event()

    def hook(word: str) -> None:
        told.append(word)
        called.set()

    def stopped() -> None:
        try:
            asked_to_end()
        finally:
            assert called.wait(60)

    with pytest.raises(Stopped), stoppable(), on_stop(hook):
        stopped()
    assert told == ["stopped"]


BUSY = """
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
            pass  # as a library does that takes no notice
"""


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGTERM, "stopped"), (signal.SIGINT, "interrupted")], ids=["SIGTERM", "SIGINT"]
)
def test_process_that_takes_no_notice_is_ended_with_its_children(number: signal.Signals, word: str) -> None:
    busy = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert busy.stdout is not None
    child = int(busy.stdout.readline())
    busy.send_signal(number)
    _, said = busy.communicate(timeout=60)
    assert busy.returncode == 128 + number
    assert said == f"{word}; finished stages are kept, the same command resumes\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
