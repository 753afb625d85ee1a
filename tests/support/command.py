"""The command line in a separate process, and a watcher of the storage that it writes to."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

PATIENCE = 240.0
"""Seconds; the machine may be busy with other tests."""


class Command:
    """A running `study` command; with `terminal`, it writes to a terminal instead of a pipe. `text` is its output."""

    def __init__(self, *arguments: str | Path, temporary: Path, terminal: bool = False) -> None:
        self.text, self._terminal = "", terminal
        environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
        reader, writer = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        command = [sys.executable, "-m", "study", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=environment, start_new_session=True
        )
        os.close(writer)
        self._thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._thread.start()

    def _read(self, reader: int) -> None:
        while True:
            try:
                part = os.read(reader, 65536)
            except OSError:  # raised by a terminal after its last writer has closed it
                part = b""
            if not part:
                os.close(reader)
                return
            self.text += part.decode(errors="replace")

    def until(self, condition: Callable[[], object], *, may_end: bool = False) -> None:
        """Wait for a condition; fail if the process ends before, unless it may."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if may_end and self.process.poll() is not None:
                return
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            assert time.monotonic() < deadline, f"too slow:\n{self.text}"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end of the process, and return its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the end of the process and return its exit status; fail after `patience` seconds without output."""
        length, deadline, status = 0, time.monotonic() + patience, None
        while status is None:
            if not self._terminal and len(self.text) > length:  # a terminal is redrawn continuously
                length, deadline = len(self.text), time.monotonic() + patience
            assert time.monotonic() < deadline, f"no output for {patience:g} s:\n{self.text}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(1.0)
        if status != -signal.SIGKILL:  # Ray processes outlive a killed driver and keep the pipe open
            self._thread.join(PATIENCE)
        return status


class Watch:
    """Polls a storage many times a second and records checkpoints and published stages."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.attempts: dict[str, dict[str, list[int]]] = {}
        """Epochs of the checkpoints of each attempt at a stage, in the order of appearance."""
        self.published: dict[str, set[int]] = {}
        """Inodes of the history of each published stage; several if the stage was published again."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(0.02):
            with contextlib.suppress(FileNotFoundError):  # folders change while they are listed
                self._record()

    def _record(self) -> None:
        for path in self.storage.glob("work/*/*/epoch-*"):
            epochs = self.attempts.setdefault(path.parts[-3], {}).setdefault(path.parts[-2], [])
            epoch = int(path.name.removeprefix("epoch-"))
            if epoch not in epochs:
                epochs.append(epoch)
        for path in self.storage.glob("stages/*/history.parquet"):
            self.published.setdefault(path.parts[-2], set()).add(path.stat().st_ino)

    @property
    def count(self) -> int:
        """Return the number of attempts with a checkpoint so far."""
        return sum(len(attempts) for attempts in self.attempts.values())


def command_line_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process, empty if it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def raylets_of(driver: psutil.Process) -> list[psutil.Process]:
    """Return the raylets, one per Ray node, that a process has started."""
    return [
        child for child in driver.children() if any("/raylet/raylet" in word for word in command_line_of(child)[:1])
    ]


def histories(storage: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of the history of each published stage; both change if the stage is trained again."""
    files = storage.glob("stages/*/history.parquet")
    return {file.parent.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}
