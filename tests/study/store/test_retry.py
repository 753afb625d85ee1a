"""Retries of transient storage errors."""

import errno

import pytest

from study.store import retry
from study.store.retry import retry_io


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", 0.1)


def test_transient_errors_are_retried_until_success() -> None:
    results = [OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "read-only"), None]

    def write() -> str:
        if error := results.pop(0):
            raise error
        return "written"

    assert retry_io(write) == "written"


def test_transient_error_is_raised_after_the_time_limit() -> None:
    attempts = []

    def write() -> None:
        attempts.append(1)
        raise OSError(errno.EDQUOT, "over quota")

    with pytest.raises(OSError, match="over quota"):
        retry_io(write)
    assert len(attempts) > 3


def test_permanent_error_is_raised_immediately() -> None:
    attempts = []

    def write() -> None:
        attempts.append(1)
        raise FileNotFoundError(errno.ENOENT, "gone")

    with pytest.raises(FileNotFoundError):
        retry_io(write)
    assert len(attempts) == 1
