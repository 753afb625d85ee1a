"""Addresses of clusters: HOST:PORT of a head, or the URL of its dashboard."""

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

CONNECT_SECONDS = 5.0
ALLOWED_HEADS = "allowed: auto, or HOST:PORT of a running Ray head; leave --address out to use this machine alone"
MAX_LENGTH, MAX_SHOWN = 300, 80
"""Maximum characters of an address, and of an invalid address in an error message."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server's address. `scheme` is empty for HOST:PORT; `path` has no trailing slash."""

    scheme: str
    host: str
    port: int | None
    path: str = ""

    @property
    def is_loopback(self) -> bool:
        """Return whether the host is this machine. Host names other than localhost may resolve to any address."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"


def parse_address(address: str) -> Endpoint:
    """Parse an address.

    Raises:
        ValueError: With the reason, which never contains a password.
    """
    if "@" in address:
        raise ValueError("has a user or a password in it")
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # brackets without an IPv6 address, or a port that is not a number
        host = ""
    # Spaces and control characters, which `urlsplit` drops, and backslashes, which other parsers read as slashes.
    visible = re.fullmatch(rf"[!-\[\]-~]{{1,{MAX_LENGTH}}}", address)
    if not visible or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        raise ValueError(f"is {quoted_address(address)}")
    if parts.query or parts.fragment:
        raise ValueError(f"is {quoted_address(address.partition('?')[0].partition('#')[0])} and more behind it")
    return Endpoint(scheme=parts.scheme, host=host, port=port, path=parts.path.rstrip("/"))


def head_address(address: str) -> tuple[str, Endpoint | None]:
    """Return the address of a head to join and its endpoint; "auto" without `RAY_ADDRESS` has no endpoint.

    Raises:
        ConnectionError: With the reason and a remedy, which never contain a password.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)  # where Ray looks first
    if address == "auto":
        return address, None
    try:
        head = parse_address(address)
    except ValueError as error:
        raise ConnectionError(f"{error}; {ALLOWED_HEADS}") from error
    if head.scheme == "ray":
        raise ConnectionError(
            f"{address} is for clients outside of a cluster, whose driver would run here; allowed: HOST:PORT of "
            "the head, on one of its nodes; from elsewhere use `study submit`"
        )
    if head.scheme in {"http", "https"}:
        raise ConnectionError(f"{address} is a dashboard; {ALLOWED_HEADS}; through a dashboard use `study submit`")
    if head.scheme or head.path or head.port is None:
        raise ConnectionError(f"is {quoted_address(address)}; {ALLOWED_HEADS}")
    return address, head


def quoted_address(address: str) -> str:
    """Return an address for an error message: quoted, with special characters escaped, truncated."""
    text = ascii(address)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...'"


def connection_problem(host: str, port: int) -> str | None:
    """Try to connect; return the reason of a failure, None on success."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError:  # a label of more than 63 characters
        return "not a host name"
    return None
