"""A Ray cluster of several nodes on this machine, started with the `ray` command and token authentication."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PATIENCE = 120.0
"""Seconds; the machine may be busy with other tests."""
RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Args:
        address: URL of the dashboard.
        nodes: Address that nodes and drivers join.
        environment: Environment variables for clients.
    """

    address: str
    nodes: str
    environment: Mapping[str, str]


@contextmanager
def cluster(workers: int) -> Iterator[Cluster]:
    """Start a head with two CPU cores and `workers` nodes with one, and end them with the block.

    Each node has its own folder: nodes with a shared folder overwrite the files of a job while it runs.
    """
    folder = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = os.environ | token | {
        "RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1", "HOME": str(folder),
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    port, dashboard = free_ports(2)
    address = f"http://127.0.0.1:{dashboard}"
    common = ["--block", "--num-gpus=0", "--object-store-memory=100000000", "--disable-usage-stats"]
    common += ["--dashboard-agent-listen-port=0"]
    nodes = []

    def start(name: str, *options: str) -> None:
        with (folder / f"{name}.log").open("w") as log:
            command = [str(RAY), "start", f"--temp-dir={folder / name}", *common, *options]
            nodes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))

    try:
        start("a", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
              "--node-ip-address=127.0.0.1", "--num-cpus=2")  # fmt: skip
        _wait_for(address, "/api/version", token["RAY_AUTH_TOKEN"], '"ray_version"')
        for number in range(workers):
            start("bcd"[number], f"--address=127.0.0.1:{port}", "--num-cpus=1")
        _wait_for(address, "/nodes?view=summary", token["RAY_AUTH_TOKEN"], *['"ALIVE"'] * (workers + 1))
        yield Cluster(address, f"127.0.0.1:{port}", {**token, "HOME": str(folder)})
    finally:
        for process in [
            member for node in nodes for member in (node, *psutil.Process(node.pid).children(recursive=True))
        ]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for node in nodes:
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, path: str, token: str, *words: str) -> None:
    """Wait until the response of the dashboard contains all words, as often as given."""
    request = urllib.request.Request(address + path, headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                text = response.read().decode()
            if all(text.count(word) >= words.count(word) for word in words):
                return
        except OSError:
            pass  # not started yet
        assert time.monotonic() < deadline, f"{address}{path} is not ready"
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()
