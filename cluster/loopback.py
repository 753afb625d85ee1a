"""The loopback interface, which other machines do not reach: where the servers of a local cluster listen."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

INTERFACES = {"lo", "lo0"}
"""Its names on Linux and macOS."""
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""By these torch's processes choose an interface for what they exchange."""


@contextmanager
def ray_on_loopback() -> Iterator[None]:
    """Bind the servers of a cluster that `ray.init` starts in the block to the loopback interface.

    On Linux it replaces `_node_ip_address="127.0.0.1"` by an address that other machines reach. Where Ray is not
    meant for several machines, as on macOS, it does not; this constant says so.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def torch_on_loopback() -> dict[str, str]:
    """Return environment variables that keep torch's processes on the loopback interface; those of the user stay."""
    names = [name for _, name in socket.if_nameindex() if name in INTERFACES]
    return {variable: names[0] for variable in VARIABLES if names and variable not in os.environ}
