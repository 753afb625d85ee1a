"""Keep the servers of a local cluster on the loopback interface, which other machines cannot reach."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

INTERFACES = {"lo", "lo0"}
"""Names of the loopback interface on Linux and macOS."""
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Variables by which torch's collective backends choose a network interface."""


@contextmanager
def ray_on_loopback() -> Iterator[None]:
    """Bind the servers of a cluster that `ray.init` starts in the block to the loopback interface.

    On Linux Ray replaces `_node_ip_address="127.0.0.1"` by an address that other machines can reach. It does not where
    `ENABLE_RAY_CLUSTER` is false, as on macOS.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def torch_on_loopback() -> dict[str, str]:
    """Return variables that bind torch's processes to the loopback interface, without those the user has set."""
    names = [name for _, name in socket.if_nameindex() if name in INTERFACES]
    return {variable: names[0] for variable in VARIABLES if names and variable not in os.environ}
