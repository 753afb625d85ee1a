"""Starting or joining a Ray cluster."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import ray

from cluster.addresses import connection_problem, head_address
from cluster.local_cluster import LocalCluster
from cluster.signals import stoppable
from cluster.tokens import protect_token_file


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """CPU cores and GPUs of a cluster.

    Args:
        cpus, gpus: Totals.
        joined: Whether this is a running cluster that was joined, whose nodes may change; see `refreshed`.
        nodes: CPU cores and GPUs of each node; empty before `refreshed`.
    """

    cpus: float
    gpus: float
    joined: bool = False
    nodes: tuple[tuple[float, float], ...] = ()

    def refreshed(self, excluded: Collection[str] = ()) -> "Capacity":
        """Return the current capacity of a joined cluster, without the nodes with these ids."""
        if not self.joined:
            return self
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in excluded]
        nodes = tuple((resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive)
        return replace(self, cpus=sum(cpus for cpus, _ in nodes), gpus=sum(gpus for _, gpus in nodes), nodes=nodes)


@contextmanager
def connected(cluster: str | LocalCluster) -> Iterator[Capacity]:
    """Join the cluster at an address, or start a local one, which ends with the block."""
    joins = isinstance(cluster, str)
    # After connecting: Ray installs its own signal handlers, which `stoppable` replaces.
    with _joined(cluster) if isinstance(cluster, str) else cluster.running(), stoppable():
        resources = ray.cluster_resources()
        yield Capacity(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0), joined=joins)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    address = _reachable_address(address)
    protect_token_file()
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


def _reachable_address(address: str) -> str:
    """Return the address of a reachable head, or "auto".

    Raises `ConnectionError` at once, where `ray.init` would retry for minutes.
    """
    address, head = head_address(address)
    problem = connection_problem(head.host, head.port) if head is not None and head.port is not None else None
    if problem:
        raise ConnectionError(
            f"nothing answers at {address} ({problem}); allowed: HOST:PORT of a running Ray head; "
            "start one with `ray start --head`, or leave --address out"
        )
    return address
