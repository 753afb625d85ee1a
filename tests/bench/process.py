"""Cost of a command, including all of its descendant processes."""

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
"""Memory is measured every `EVERY` pauses, because reading the shared memory takes the machine some time."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Wall-clock `seconds`, `cpu` seconds of all processes, and peak `memory` in MiB, shared memory counted once."""

    seconds: float
    cpu: float
    memory: float
    began: float
    """Start time in seconds since the epoch."""


@dataclass
class _Family:
    """A process and its descendants, including those that outlive their parents."""

    members: dict[int, psutil.Process] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)

    def look(self, *, memory: bool) -> float:
        """Record CPU time; return the memory in MiB if `memory` is set."""
        total = 0
        for process in psutil.process_iter(["ppid"]):  # ordered by process id: parents first
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
    """Run `python -m WORDS` to its end. Raises `RuntimeError` with the end of its output if it fails."""
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
        elapsed = time.perf_counter() - begun
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    # Polling misses the last moments of each process, and waiting misses the processes of Ray.
    cpu = max(sum(family.cpu.values()), children_seconds() - ended)
    return Cost(seconds=elapsed, cpu=cpu, memory=peak, began=began)


@contextlib.contextmanager
def _own_temporary() -> Iterator[str]:
    """Create a folder with a short name, because the sockets of Ray are in it."""
    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as folder:
        yield folder


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without settings of threads, which each program sets itself."""
    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | quiet | changes


@contextlib.contextmanager
def in_separate_process(call: Callable[[], float]) -> Iterator[Callable[[], float]]:
    """Run a call in a separate process, as a worker or a trial does, so that its effects on the process stay there.

    The process is a copy of this one and lives until the block ends, so that later calls are warm.
    """
    fork = multiprocessing.get_context("fork")
    near, far = fork.Pipe()
    process = fork.Process(target=_serve, args=(call, far))
    process.start()
    far.close()

    def request() -> float:
        near.send(True)
        return float(near.recv())

    try:
        yield request
    finally:
        with contextlib.suppress(BrokenPipeError):
            near.send(False)
        process.join()


def _serve(call: Callable[[], float], connection: Connection) -> None:
    while connection.recv():
        connection.send(call())
