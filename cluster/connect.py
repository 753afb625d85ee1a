"""Starting or joining a Ray cluster."""

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray

from cluster.scratch import scratch_folder

ANSWER_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster has."""

    cpus: float
    gpus: float


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
        try:
            with _ended_like_an_interrupt():
                resources = ray.cluster_resources()
                yield Capacity(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0))
        finally:
            ray.shutdown()


def _refuse_silence(address: str) -> None:
    """Raise `ConnectionError` at once where nothing listens; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # a name that Ray resolves itself, as "auto"
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"nothing answers at {address} ({error.strerror or error}); allowed: HOST:PORT of a running Ray head; "
            "start one with `ray start --head`, or leave --address out"
        ) from error


@contextmanager
def _ended_like_an_interrupt() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on SIGTERM; Ray's own handler aborts the process with a stack trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
