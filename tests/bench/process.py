"""What a command costs, with every process that descends from it."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from tests.bench.figure import children_seconds

PAUSE = 0.5
EVERY = 8
"""Memory is looked at every so many pauses: reading what is shared takes the machine some time."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """`seconds` by the clock, `cpu` seconds of all processes, `memory` in MiB at most, where looked at; shared once."""

    seconds: float
    cpu: float
    memory: float
    began: float
    """When it began, as a time of the clock."""


@dataclass
class _Family:
    """A process and its descendants, also where these outlive what started them."""

    members: dict[int, psutil.Process] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)

    def look(self, *, memory: bool) -> float:
        """Take note of processor time; return the memory in MiB if asked for."""
        total = 0
        for process in psutil.process_iter(["ppid"]):  # in the order of their numbers: parents first
            if process.info["ppid"] in self.members:
                self.members.setdefault(process.pid, process)
        for pid, process in list(self.members.items()):
            try:
                times = process.cpu_times()
                self.cpu[pid] = times.user + times.system
                total += process.memory_full_info().pss if memory else 0
            except psutil.Error:
                del self.members[pid]
        return total / 2**20


def watched(*words: str | Path, log: Path) -> Cost:
    """Run `python -m WORDS` to its end. Raises `RuntimeError` with the end of its output where it fails."""
    began, begun, ended, peak, looks = time.time(), time.perf_counter(), children_seconds(), 0.0, 0
    with log.open("w") as output, _own_temporary() as temporary:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=environment() | {"TMPDIR": temporary},
        )  # fmt: skip
        family = _Family({process.pid: psutil.Process(process.pid)})
        while process.poll() is None:
            peak = max(peak, family.look(memory=looks % EVERY == 0))
            looks += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PAUSE)
        took = time.perf_counter() - begun
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    # What was looked at lacks each process's last moments, what was waited for lacks Ray's processes.
    cpu = max(sum(family.cpu.values()), children_seconds() - ended)
    return Cost(seconds=took, cpu=cpu, memory=peak, began=began)


@contextlib.contextmanager
def _own_temporary() -> Iterator[str]:
    """Make a folder with a short name: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as folder:
        yield folder


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without a say in threads, which each program sets itself."""
    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | quiet | changes


@contextlib.contextmanager
def apart(call: Callable[[], float]) -> Iterator[Callable[[], float]]:
    """Give a call a process of its own, as a worker or a trial has, and what the call does to it stays there.

    The process is a copy of this one and lives until the block ends: it is as warm as its calls have made it.
    """
    fork = multiprocessing.get_context("fork")
    near, far = fork.Pipe()
    process = fork.Process(target=_answer, args=(call, far))
    process.start()
    far.close()

    def ask() -> float:
        near.send(True)
        return float(near.recv())

    try:
        yield ask
    finally:
        with contextlib.suppress(BrokenPipeError):
            near.send(False)
        process.join()


def _answer(call: Callable[[], float], asked: Connection) -> None:
    while asked.recv():
        asked.send(call())
