"""The real command line as a process of its own, and an eye on the storage it writes to."""

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
    """`study ...` under way. `terminal`: it writes to a terminal, else to pipes; both streams are kept."""

    def __init__(self, *arguments: str | Path, temporary: Path, terminal: bool = False) -> None:
        self.text, self._terminal = "", terminal
        environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
        reader, writer = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        words = [sys.executable, "-m", "study", *map(str, arguments)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=environment, start_new_session=True
        )
        os.close(writer)
        self._thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._thread.start()

    def _read(self, reader: int) -> None:
        while True:
            try:
                part = os.read(reader, 65536)
            except OSError:  # how a terminal says that its last writer is gone
                part = b""
            if not part:
                os.close(reader)
                return
            self.text += part.decode(errors="replace")

    def until(self, what: Callable[[], object], *, may_end: bool = False) -> None:
        """Wait for something; fail where the process ends before, unless it may."""
        deadline = time.monotonic() + PATIENCE
        while not what():
            if may_end and self.process.poll() is not None:
                return
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            assert time.monotonic() < deadline, f"too slow:\n{self.text}"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, patience: float = PATIENCE) -> int:
        """Return the exit status; what was written is in `text`. Fails after so many seconds without a new line."""
        said, deadline, status = 0, time.monotonic() + patience, None
        while status is None:
            if not self._terminal and len(self.text) > said:  # a terminal is drawn anew all the time
                said, deadline = len(self.text), time.monotonic() + patience
            assert time.monotonic() < deadline, f"silent for {patience:g} s:\n{self.text}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(1.0)
        if status != -signal.SIGKILL:  # Ray's processes outlive a killed driver for a while and hold the pipe
            self._thread.join(PATIENCE)
        return status


class Watch:
    """Looks at a storage many times a second and remembers what was there."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.attempts: dict[str, dict[str, list[int]]] = {}
        """Epochs after which each attempt at a stage left a checkpoint, in the order seen."""
        self.published: dict[str, set[int]] = {}
        """Inodes of each published stage's history: more than one where it was published again."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            with contextlib.suppress(FileNotFoundError):  # folders come and go while they are listed
                self._look_once()

    def _look_once(self) -> None:
        for path in self.storage.glob("work/*/*/epoch-*"):
            epochs = self.attempts.setdefault(path.parts[-3], {}).setdefault(path.parts[-2], [])
            epoch = int(path.name.removeprefix("epoch-"))
            if epoch not in epochs:
                epochs.append(epoch)
        for path in self.storage.glob("stages/*/history.parquet"):
            self.published.setdefault(path.parts[-2], set()).add(path.stat().st_ino)

    @property
    def count(self) -> int:
        """How many attempts left a checkpoint so far."""
        return sum(len(attempts) for attempts in self.attempts.values())


def words_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process, nothing of one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def raylets_of(driver: psutil.Process) -> list[psutil.Process]:
    """Return the nodes of Ray that a process has started."""
    return [child for child in driver.children() if any("/raylet/raylet" in word for word in words_of(child)[:1])]


def histories(storage: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of each published stage's history: both move when it is trained again."""
    files = storage.glob("stages/*/history.parquet")
    return {file.parent.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}
