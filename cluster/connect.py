"""Starting or joining a Ray cluster."""

import logging
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import ray

from cluster.local import LocalCluster
from cluster.stopping import stoppable

ANSWER_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster has. `joined`: nodes may come and go; `now` then tells processors and GPUs of each."""

    cpus: float
    gpus: float
    joined: bool = False
    nodes: tuple[tuple[float, float], ...] = ()

    def now(self, without: Collection[str] = ()) -> "Capacity":
        """Return what there is by now, but for the nodes of these ids."""
        if not self.joined:
            return self
        found = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in without]
        nodes = tuple((each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in found)
        return replace(self, cpus=sum(cpus for cpus, _ in nodes), gpus=sum(gpus for _, gpus in nodes), nodes=nodes)


@contextmanager
def connected(cluster: str | LocalCluster) -> Iterator[Capacity]:
    """Join the cluster at an address, or start this machine's own, which ends with the block."""
    joins = isinstance(cluster, str)
    # Stoppable second: Ray has just set a handler of its own.
    with _joined(cluster) if isinstance(cluster, str) else cluster.running(), stoppable():
        resources = ray.cluster_resources()
        yield Capacity(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0), joined=joins)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    _refuse_silence(address)
    try:
        ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False)
    except ConnectionError as error:
        raise ConnectionError(
            f"{' '.join(str(error).split())}; allowed: a head of the same version of Ray that lets this machine "
            "join; where it asks for a token, set RAY_AUTH_MODE=token and put the token into ~/.ray/auth_token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_silence(address: str) -> None:
    """Raise `ConnectionError` at once where nothing listens; Ray itself tries for minutes."""
    if address.startswith("ray://"):
        raise ConnectionError(
            f"{address} is for clients outside of a cluster, whose driver would run here; allowed: HOST:PORT of the "
            "head, on one of its nodes; from elsewhere use `study submit`"
        )
    host, _, port = address.rpartition(":")
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
