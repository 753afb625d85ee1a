"""Ray's authentication token: which token a cluster receives, and who else can read it."""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.addresses import Endpoint

TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that set a token; without them Ray reads `~/.ray/auth_token`."""
TOKEN_FILE = Path(".ray", "auth_token")
"""Token file, relative to the home folder."""


@contextmanager
def fresh_token() -> Iterator[None]:
    """Protect the cluster that starts in the block by a new token, known only to this process and its children.

    Any local user can connect to the loopback interface, and a client with the token can run code. The token is never
    written to a file.
    """
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    loader = AuthenticationTokenLoader.instance()
    try:
        # `ray.init` turns authentication on where no mode is set. Ray keeps the first token that it has read.
        with environment(RAY_AUTH_MODE=None, RAY_AUTH_TOKEN=secrets.token_hex(32)):
            loader.reset_cache()
            yield
    finally:
        loader.reset_cache()


def is_withheld(endpoint: Endpoint) -> bool:
    """Return whether the token file is not sent, because it would travel unencrypted to another machine."""
    encrypted = endpoint.scheme == "https" or endpoint.is_loopback
    return not encrypted and not any(os.environ.get(name) for name in TOKEN_VARIABLES)


def authorization(endpoint: Endpoint) -> dict[str, str]:
    """Return the authorization header with the token, empty where the token may not be sent to this endpoint."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    if is_withheld(endpoint):
        return {"Authorization": ""}  # without this header Ray's client adds the token with RAY_AUTH_MODE=token
    protect_token_file()
    loader = AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        return {}
    return {"Authorization": f"Bearer {loader.get_raw_token(ignore_auth_mode=True)}"}


def has_token_file() -> bool:
    """Return whether `~/.ray/auth_token` exists."""
    with suppress(OSError, RuntimeError):  # no home folder
        return (Path.home() / TOKEN_FILE).is_file()
    return False


def protect_token_file() -> None:
    """Make `~/.ray/auth_token` private if this user owns it: Ray creates it with the umask's permissions."""
    with suppress(OSError, RuntimeError):  # no such file, or no home folder
        file = Path.home() / TOKEN_FILE
        status = file.stat()
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            file.chmod(stat.S_IMODE(status.st_mode) & 0o700)


@contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Set environment variables in the block, or unset those that are None."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
