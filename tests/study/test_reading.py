import io

import pytest

from study import reading


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_sees_one_line_that_ends_with_the_last_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    tell = reading.telling("ccxs")
    tell(1, 2_000)
    tell(2_000, 2_000)
    assert shown.getvalue() == "\rreading data.ccxs: 1 of 2,000 files\rreading data.ccxs: 2,000 of 2,000 files\n"


def test_pipe_sees_nothing_of_a_short_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    reading.telling("ccxs")(1, 1)
    assert shown.getvalue() == ""
