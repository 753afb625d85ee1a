"""Runs commands in this process; they must end with an exit status for any input."""

import contextlib
import io
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from study.cli.main import main

CPU_SECONDS = 30
"""CPU time after which a command is considered not to terminate."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """Exit status and output of a command."""

    status: int
    out: str
    error: str


class CommandTimeout(BaseException):
    """The command exceeded the limit of CPU time."""


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def raise_timeout(number: int, frame: FrameType | None) -> None:
        raise CommandTimeout

    previous_handler = signal.signal(signal.SIGPROF, raise_timeout)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous_handler)


def run_command(*arguments: str) -> CommandResult:
    """Run a command; any exception other than its exit is a bug and is raised."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), _time_limit():
        try:
            main(list(arguments))
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return CommandResult(status=status, out=out.getvalue(), error=error.getvalue())


def output_problem(result: CommandResult, *, single: bool) -> str | None:
    """Return what is wrong with the messages of a command; with `single`, it may report at most one problem."""
    lines = result.error.splitlines()
    if result.status not in (0, 1, 2):
        return f"exit status {result.status}"
    unreadable = [line for line in lines if not line.isprintable() or "Traceback" in line]
    if unreadable:
        return f"line {unreadable[0]!a}"
    if result.status == 2 and not result.out and (not lines or (single and len(lines) > 1)):
        return f"{len(lines)} lines for a refusal"
    if result.status == 2 and not all("allowed: " in line for line in lines):
        return f"no remedy in {lines}"
    return None
