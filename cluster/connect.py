"""Starting or joining a Ray cluster."""

import logging
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import psutil
import ray

from cluster.scratch import scratch_folder
from cluster.stopping import stoppable

ANSWER_SECONDS = 5.0
AUTOSCALER = "/ray/autoscaler/_private/monitor.py"


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster has. `joined`: nodes may come and go."""

    cpus: float
    gpus: float
    joined: bool = False

    def now(self, without: Collection[str] = ()) -> "Capacity":
        """Return what there is by now, but for the nodes of these ids."""
        if not self.joined:
            return self
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in without]
        cpus, gpus = (sum(resources.get(kind, 0.0) for resources in nodes) for kind in ("CPU", "GPU"))
        return replace(self, cpus=cpus, gpus=gpus)


@contextmanager
def connected(address: str | None) -> Iterator[Capacity]:
    """Join the cluster at `address`, or start one on this machine that ends with the block.

    The local one is asked for by name: a bare `ray.init()` may join a cluster whose head has died.
    """
    if address:
        _refuse_silence(address)
    with scratch_folder() as scratch:
        own: dict[str, Any] = {} if address else {"include_dashboard": False, "_temp_dir": str(scratch)}
        ray.init(address=address or "local", logging_level=logging.CRITICAL, log_to_driver=False, **own)
        if not address:
            _end_autoscaler()
        try:
            with stoppable():  # Ray has just set a handler of its own
                resources = ray.cluster_resources()
                yield Capacity(
                    cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0), joined=address is not None
                )
        finally:
            ray.shutdown()


def _end_autoscaler() -> None:
    """End the autoscaler of the cluster that has just begun here.

    One machine needs none, and at the end it would ask a server that is gone, for a second, until it is killed.
    """
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(word.endswith(AUTOSCALER) for word in child.cmdline()):
                child.kill()


def _refuse_silence(address: str) -> None:
    """Raise `ConnectionError` at once where nothing listens; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # a name that Ray resolves itself, as "auto"
    unheard = silence(host, int(port))
    if unheard:
        raise ConnectionError(
            f"nothing answers at {address} ({unheard}); allowed: HOST:PORT of a running Ray head; "
            "start one with `ray start --head`, or leave --address out"
        )


def silence(host: str, port: int) -> str | None:
    """Return why nothing answers there, None where something does."""
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
