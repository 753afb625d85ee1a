import os
import signal

import pytest

from cluster.stopping import Stopped, stoppable


def asked_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_stops_a_block() -> None:
    with pytest.raises(Stopped), stoppable():
        asked_to_end()


def test_stop_that_a_library_turned_into_an_interrupt_is_a_stop() -> None:
    def library() -> None:
        try:
            asked_to_end()
        except Stopped:
            raise KeyboardInterrupt from None

    with pytest.raises(Stopped), stoppable():
        library()


def test_interrupt_of_a_block_is_no_stop() -> None:
    with pytest.raises(KeyboardInterrupt) as ended, stoppable():
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(ended.value, Stopped)


def test_handler_of_before_is_back_after_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
