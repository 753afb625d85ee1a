"""Patience with a storage that refuses."""

import errno

import pytest

from study.store import retry
from study.store.retry import retry_io


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", 0.1)


def test_what_is_refused_for_a_while_is_done_in_the_end() -> None:
    answers = [OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "read-only"), None]

    def write() -> str:
        if error := answers.pop(0):
            raise error
        return "written"

    assert retry_io(write) == "written"


def test_patience_ends() -> None:
    tries = []

    def write() -> None:
        tries.append(1)
        raise OSError(errno.EDQUOT, "over quota")

    with pytest.raises(OSError, match="over quota"):
        retry_io(write)
    assert len(tries) > 3


def test_an_error_that_does_not_pass_is_raised_at_once() -> None:
    tries = []

    def write() -> None:
        tries.append(1)
        raise FileNotFoundError(errno.ENOENT, "gone")

    with pytest.raises(FileNotFoundError):
        retry_io(write)
    assert len(tries) == 1
