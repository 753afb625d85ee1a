"""Nodes of a Ray cluster on this machine that are killed, replaced, and cut off from their network."""

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

HASTE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}
"""A head misses a silent node within seconds."""
SPACE, NEAR, FAR = "study-node", "study-near", "study-far"
HOST, GUEST = "10.219.7.1", "10.219.7.2"


@dataclass
class Nodes:
    """A head and the nodes that join it; each has a folder of its own, and processors as it is told."""

    folder: Path
    ip: str = "127.0.0.1"
    _port: int = 0
    _nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{self.ip}:{self._port}"

    def head(self, cpus: int = 1) -> str:
        """Start a cluster; one before it has to be gone."""
        (self._port,) = free_ports(1)
        place = ("--head", f"--port={self._port}", "--include-dashboard=false", f"--node-ip-address={self.ip}")
        return self._started(self._start(cpus, *place))

    def join(self, cpus: int = 1, *, count: int = 1) -> list[str]:
        """Add nodes, started at once."""
        return [self._started(name) for name in [self._start(cpus, f"--address={self.address}") for _ in range(count)]]

    def join_by_cable(self, cpus: int = 1) -> str:
        """Add a node that lives at the far end of the `cable`."""
        place = (f"--address={self.address}", f"--node-ip-address={GUEST}")
        return self._started(self._start(cpus, *place, inside=("ip", "netns", "exec", SPACE)))

    def kill(self, name: str) -> None:
        """End all processes of a node at once, as a machine does that loses its power."""
        node = self._nodes.pop(name)
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(node.pid)
            for each in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        node.wait()

    def end(self) -> None:
        """Kill every node."""
        for name in tuple(self._nodes):
            self.kill(name)

    def _start(self, cpus: int, *options: str, inside: tuple[str, ...] = ()) -> str:
        name = f"{len(list(self.folder.iterdir())):x}"
        place = self.folder / name
        place.mkdir()
        words = [*inside, str(RAY), "start", f"--temp-dir={place}", f"--num-cpus={cpus}", "--num-gpus=0", "--block"]
        words += ["--object-store-memory=80000000", "--disable-usage-stats", *options]
        environment = os.environ | HASTE | {"OMP_NUM_THREADS": "1"}
        with (place / "log").open("w") as log:
            self._nodes[name] = subprocess.Popen(
                words, env=environment, stdout=log, stderr=log, start_new_session=True
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
    """Start a head and so many more nodes of one processor each, and end whatever is left with the block.

    What a client needs is put into the environment, for this process and those it starts.
    """
    made = Nodes(Path(tempfile.mkdtemp(prefix="n-", dir="/tmp")), ip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            made.head()
            made.join(count=workers)
            yield made
        finally:
            made.end()
            shutil.rmtree(made.folder, ignore_errors=True)


@contextmanager
def cable() -> Iterator[None]:
    """Lay a network beside this machine's that one cable joins to it: `HOST` here, `GUEST` there."""
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
        for words in (("link", "del", NEAR), ("netns", "del", SPACE)):
            with suppress(subprocess.CalledProcessError):
                _ip(*words)


def plug(connected: bool) -> None:
    """Plug the cable in or out."""
    _ip("-n", SPACE, "link", "set", FAR, "up" if connected else "down")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def disk(place: Path, megabytes: int) -> Iterator[None]:
    """Mount a disk of its own at a folder."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def refuse_writes(place: Path, refused: bool) -> None:
    """Make a mounted disk read-only, or writable again; it may be busy with a file for a moment."""
    words = ["mount", "-o", f"remount,{'ro' if refused else 'rw'}", str(place)]
    deadline = time.monotonic() + PATIENCE
    while subprocess.run(words, check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, f"{place} is always busy"


def fill(place: Path) -> Path:
    """Leave no byte free on a disk, and return the file that has them all."""
    filler = place / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(65536))
    return filler


def may_mount() -> bool:
    """Return whether this process may mount disks and lay networks."""
    return subprocess.run(["unshare", "-mn", "true"], check=False, capture_output=True).returncode == 0
