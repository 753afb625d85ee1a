"""Starting or joining a Ray cluster."""

import logging
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray

from cluster.scratch import scratch_folder
from cluster.stopping import stoppable

ANSWER_SECONDS = 5.0


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
    """Join the cluster at `address`, or start one on this machine that begins to end with the block.

    The local one is asked for by name: a bare `ray.init()` may join a cluster whose head has died.
    """
    if address:
        _refuse_silence(address)
    _ending.wait()
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        own: dict[str, Any] = {} if address else {"include_dashboard": False, "_temp_dir": str(scratch)}
        ray.init(address=address or "local", logging_level=logging.CRITICAL, log_to_driver=False, **own)
        stack.callback(ray.shutdown)
        with stoppable():  # Ray has just set a handler of its own
            resources = ray.cluster_resources()
            yield Capacity(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0), joined=address is not None)
        if address is None:  # where all went well; else nobody is left to wait for it
            _ending.begin(stack.pop_all().close)


class _Ending:
    """The end of this machine's own cluster, which takes a second in which others have things to do."""

    def __init__(self) -> None:
        self._thread = threading.Thread()

    def begin(self, end: Callable[[], None]) -> None:
        """End it in a thread, for which Python waits before it ends itself."""
        self._thread = threading.Thread(target=end, name="cluster ends")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the one before: a process has one cluster at a time."""
        if self._thread.is_alive():
            self._thread.join()


_ending = _Ending()


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
