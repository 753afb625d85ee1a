"""Keep the TCP store of torch's process group on the loopback interface where all workers are on one machine."""

import socket
from importlib import import_module
from typing import Any

from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cluster.addresses import Endpoint


class LoopbackTorchConfig(TorchConfig):
    """Sets up torch's process group; on a cluster of one machine its store listens on the loopback interface.

    torch's store has no authentication and listens on all interfaces by default.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Return the backend that starts the process group."""
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:
        worker_group.execute_single(0, _replace_store)
        super().on_start(worker_group, backend_config)


def _replace_store() -> None:
    """Make torch create the store with `_store` in this process, which serves it."""
    module: Any = import_module("torch.distributed.rendezvous")  # the package has a function of this name
    module.TCPStore = _store


def _store(*, host_name: str, port: int, is_master: bool, **options: Any) -> TCPStore:  # noqa: ANN401 - of torch
    if is_master and Endpoint(scheme="", host=host_name, port=port).is_loopback:
        family = socket.AF_INET6 if ":" in host_name else socket.AF_INET
        options["master_listen_fd"] = socket.create_server((host_name, port), family=family).detach()
    return TCPStore(host_name=host_name, port=port, is_master=is_master, **options)
