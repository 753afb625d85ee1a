"""Ray's authentication token: which one a cluster gets, and who else can read it."""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.addresses import Endpoint

EXPLICIT = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that name a token; without them Ray reads the file."""
FILE = Path(".ray", "auth_token")
"""Under the home folder."""


@contextmanager
def own_token() -> Iterator[None]:
    """Require a new token of the cluster that starts in the block: in no file, and known to this user's processes only.

    Any local user can connect to the loopback interface, and whoever has the token can run code.
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
    """Return whether the token of `~/.ray/auth_token` would travel unencrypted to another machine."""
    encrypted = endpoint.scheme == "https" or endpoint.is_loopback
    return not encrypted and not any(os.environ.get(name) for name in EXPLICIT)


def authorization(endpoint: Endpoint) -> dict[str, str]:
    """Return the header with the token, as far as this endpoint may have it."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    if is_withheld(endpoint):
        return {"Authorization": ""}  # without this header Ray's client adds the token with RAY_AUTH_MODE=token
    protect_token_file()
    loader = AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        return {}
    return {"Authorization": f"Bearer {loader.get_raw_token(ignore_auth_mode=True)}"}


def has_token_file() -> bool:
    """Return whether there is a `~/.ray/auth_token`."""
    with suppress(OSError, RuntimeError):  # no home
        return (Path.home() / FILE).is_file()
    return False


def protect_token_file() -> None:
    """Make `~/.ray/auth_token` private where it is this user's: Ray writes it as the umask says, mostly for all."""
    with suppress(OSError, RuntimeError):  # there is none, or no home
        file = Path.home() / FILE
        found = file.stat()
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:
            file.chmod(stat.S_IMODE(found.st_mode) & 0o700)


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
