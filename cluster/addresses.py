"""Addresses of clusters: HOST:PORT of a head, or the URL of its dashboard."""

import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

CONNECT_SECONDS = 5.0
LONGEST, SHOWN = 300, 80
"""Characters of an address, and of a refused one in a message."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a server listens. `scheme` is empty for HOST:PORT; `path` has no slash at its end."""

    scheme: str
    host: str
    port: int | None
    path: str = ""

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can be meant. Names other than localhost may resolve to anything."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"


def parse_address(address: str) -> Endpoint:
    """Return the parts of an address. Raises `ValueError` with what is wrong, which never shows a password."""
    if "@" in address:
        raise ValueError("has a user or a password in it")
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # of brackets without an IPv6 address, or a port that is no number
        host = ""
    # Spaces and control characters, which `urlsplit` drops, and backslashes, which other parsers read as slashes.
    visible = re.fullmatch(rf"[!-\[\]-~]{{1,{LONGEST}}}", address)
    if not visible or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        raise ValueError(f"is {shown(address)}")
    if parts.query or parts.fragment:
        raise ValueError(f"is {shown(address.partition('?')[0].partition('#')[0])} and more behind it")
    return Endpoint(scheme=parts.scheme, host=host, port=port, path=parts.path.rstrip("/"))


def shown(address: str) -> str:
    """Return an address for a message: quoted, special characters escaped, cut."""
    text = ascii(address)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}...'"


def connection_problem(host: str, port: int) -> str | None:
    """Return why nothing answers there, None where something does."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError:  # a label of more than 63 characters
        return "not a host name"
    return None
