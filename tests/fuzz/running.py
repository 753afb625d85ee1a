"""Commands in this process that must end in an exit status, whatever they are given."""

import contextlib
import io
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from study.cli.main import main

CPU_SECONDS = 30
"""A command that has used so many has no end."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    error: str


class Endless(BaseException):
    """The command was given up."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise Endless

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def ended(*words: str) -> Ended:
    """Run a command. Whatever it raises but its exit is an error of the software."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), _limited():
        try:
            main(list(words))
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return Ended(status=status, out=out.getvalue(), error=error.getvalue())


def lines_problem(command: Ended, *, one: bool) -> str | None:
    """Return what is wrong with how a command explained itself; `one`: it has one problem at most."""
    lines = command.error.splitlines()
    if command.status not in (0, 1, 2):
        return f"exit status {command.status}"
    unreadable = [line for line in lines if not line.isprintable() or "Traceback" in line]
    if unreadable:
        return f"line {unreadable[0]!a}"
    if command.status == 2 and not command.out and (not lines or (one and len(lines) > 1)):
        return f"{len(lines)} lines for a refusal"
    if command.status == 2 and not all("allowed: " in line for line in lines):
        return f"no remedy in {lines}"
    return None
