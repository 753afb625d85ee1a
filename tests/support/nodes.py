"""A Ray cluster on this machine whose nodes can be killed, replaced, and disconnected from the network."""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.support.head import PATIENCE, RAY, free_ports

FAST_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}
"""Settings with which the head detects an unresponsive node within seconds."""
SPACE, NEAR, FAR = "study-node", "study-near", "study-far"
HOST, GUEST = "10.219.7.1", "10.219.7.2"


@dataclass
class Nodes:
    """A head node and the nodes that join it, each with its own folder and number of CPU cores."""

    folder: Path
    ip: str = "127.0.0.1"
    _port: int = 0
    _nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{self.ip}:{self._port}"

    def head(self, cpus: int = 1) -> str:
        """Start a head node; an earlier one must have ended."""
        (self._port,) = free_ports(1)
        options = ("--head", f"--port={self._port}", "--include-dashboard=false", f"--node-ip-address={self.ip}")
        return self._started(self._start(cpus, *options))

    def join(self, cpus: int = 1, *, count: int = 1) -> list[str]:
        """Add nodes, started concurrently."""
        return [self._started(name) for name in [self._start(cpus, f"--address={self.address}") for _ in range(count)]]

    def join_by_cable(self, cpus: int = 1) -> str:
        """Add a node in the network namespace at the far end of the `cable`."""
        options = (f"--address={self.address}", f"--node-ip-address={GUEST}")
        return self._started(self._start(cpus, *options, inside=("ip", "netns", "exec", SPACE)))

    def kill(self, name: str) -> None:
        """Kill all processes of a node, as if its machine lost power."""
        node = self._nodes.pop(name)
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(node.pid)
            for member in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
        node.wait()

    def end(self) -> None:
        """Kill every node."""
        for name in tuple(self._nodes):
            self.kill(name)

    def _start(self, cpus: int, *options: str, inside: tuple[str, ...] = ()) -> str:
        name = f"{len(list(self.folder.iterdir())):x}"
        folder = self.folder / name
        folder.mkdir()
        command = [*inside, str(RAY), "start", f"--temp-dir={folder}", f"--num-cpus={cpus}", "--num-gpus=0", "--block"]
        command += ["--object-store-memory=80000000", "--disable-usage-stats", *options]
        environment = os.environ | FAST_HEALTH_CHECKS | {"OMP_NUM_THREADS": "1"}
        with (folder / "log").open("w") as log:
            self._nodes[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip
        return name

    def _started(self, name: str) -> str:
        log, deadline = self.folder / name / "log", time.monotonic() + PATIENCE
        while "Ray runtime started" not in log.read_text():
            assert self._nodes[name].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        return name


@contextmanager
def nodes(workers: int, *, ip: str = "127.0.0.1") -> Iterator[Nodes]:
    """Start a head and `workers` nodes with one CPU core each, and end all nodes with the block.

    The settings for clients are set in the environment of this process and its children.
    """
    cluster = Nodes(Path(tempfile.mkdtemp(prefix="n-", dir="/tmp")), ip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            cluster.head()
            cluster.join(count=workers)
            yield cluster
        finally:
            cluster.end()
            shutil.rmtree(cluster.folder, ignore_errors=True)


@contextmanager
def cable() -> Iterator[None]:
    """Create a network namespace that a virtual cable connects to this machine, with addresses `HOST` and `GUEST`."""
    try:
        _ip("netns", "add", SPACE)
        _ip("link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", SPACE)
        _ip("addr", "add", f"{HOST}/24", "dev", NEAR)
        _ip("link", "set", NEAR, "up")
        _ip("-n", SPACE, "addr", "add", f"{GUEST}/24", "dev", FAR)
        _ip("-n", SPACE, "link", "set", "lo", "up")
        plug(True)
        yield
    finally:
        for arguments in (("link", "del", NEAR), ("netns", "del", SPACE)):
            with suppress(subprocess.CalledProcessError):
                _ip(*arguments)


def plug(connected: bool) -> None:
    """Connect or disconnect the cable."""
    _ip("-n", SPACE, "link", "set", FAR, "up" if connected else "down")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a separate disk at a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refuse_writes(folder: Path, refused: bool) -> None:
    """Make a mounted disk read-only or writable, with retries while a file is open."""
    command = ["mount", "-o", f"remount,{'ro' if refused else 'rw'}", str(folder)]
    deadline = time.monotonic() + PATIENCE
    while subprocess.run(command, check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, f"{folder} is always busy"


def fill(folder: Path) -> Path:
    """Fill a disk completely, and return the file that uses its space."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(65536))
    return filler


def may_mount() -> bool:
    """Return whether this process may mount disks and create network namespaces."""
    return subprocess.run(["unshare", "-mn", "true"], check=False, capture_output=True).returncode == 0
