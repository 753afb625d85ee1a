"""Keep the TCP store of torch's process group on the loopback interface where all workers are on one machine."""

import socket
from importlib import import_module
from typing import Any

from ray.train.torch import TorchConfig
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cluster.addresses import Endpoint

TorchBackend: Any = TorchConfig().backend_cls
"""Ray's class that starts torch's process group."""


class LoopbackTorchConfig(TorchConfig):
    """Sets up torch's process group; on a cluster of one machine its store listens on the loopback interface.

    torch's store has no authentication and listens on all interfaces by default.
    """

    @property
    def backend_cls(self) -> type:
        """Return the class that starts the process group."""
        return LoopbackBackend


class LoopbackBackend(TorchBackend):
    """Starts torch's process group with a store that `create_store` creates."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:  # noqa: ANN401 - undocumented in Ray
        """Start the process group."""
        worker_group.execute_single(0, _replace_store)
        super().on_start(worker_group, backend_config)


def _replace_store() -> None:
    """Make torch create the store with `create_store` in this process, which serves it."""
    module: Any = import_module("torch.distributed.rendezvous")  # the package has a function of this name
    module.TCPStore = create_store


def create_store(*, host_name: str, port: int, is_master: bool, **options: Any) -> TCPStore:  # noqa: ANN401 - of torch
    """Create torch's store; it listens on `host_name` only if that is a loopback address."""
    if is_master and Endpoint(scheme="", host=host_name, port=port).is_loopback:
        family = socket.AF_INET6 if ":" in host_name else socket.AF_INET
        options["master_listen_fd"] = socket.create_server((host_name, port), family=family).detach()
    return TCPStore(host_name=host_name, port=port, is_master=is_master, **options)
