"""A Ray cluster of several nodes on this machine, started as a person starts one, its token on."""

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
    """`address` is the dashboard's, `nodes` what nodes join; `environment` is what a client needs."""

    address: str
    nodes: str
    environment: Mapping[str, str]


@contextmanager
def cluster(workers: int) -> Iterator[Cluster]:
    """Start a head with two processors and so many more nodes with one, and end them with the block.

    Each node has a folder of its own: nodes that share one unpack a job's code over each other while it runs.
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
            words = [str(RAY), "start", f"--temp-dir={folder / name}", *common, *options]
            nodes.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True))

    try:
        start("a", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
              "--node-ip-address=127.0.0.1", "--num-cpus=2")  # fmt: skip
        _until(address, "/api/version", token["RAY_AUTH_TOKEN"], '"ray_version"')
        for number in range(workers):
            start("bcd"[number], f"--address=127.0.0.1:{port}", "--num-cpus=1")
        _until(address, "/nodes?view=summary", token["RAY_AUTH_TOKEN"], *['"ALIVE"'] * (workers + 1))
        yield Cluster(address, f"127.0.0.1:{port}", {**token, "HOME": str(folder)})
    finally:
        for process in [each for node in nodes for each in (node, *psutil.Process(node.pid).children(recursive=True))]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for node in nodes:
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _until(address: str, path: str, token: str, *words: str) -> None:
    """Wait for an answer of the dashboard that holds all the words, repeated ones as often."""
    request = urllib.request.Request(address + path, headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                text = answer.read().decode()
            if all(text.count(word) >= words.count(word) for word in words):
                return
        except OSError:
            pass  # it is not up yet
        assert time.monotonic() < deadline, f"{address}{path} is not ready"
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
