"""Requests to the Hugging Face hub. Used by planning, so it does not import torch."""

import os
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from models.catalog.hub_cache import WEIGHTS_FILE
from models.catalog.published import COMMIT, SHA256, Content, PublishedWeights

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

TIMEOUT = 5.0
"""Seconds to wait for an answer about a file."""
CONNECTIONS = 8
PORTS = {"http": 80, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
"""Default ports by scheme, for others 443."""
REFUSALS = (400, 401, 403, 404, 410, 451)
"""Statuses of answers that a repeated request would get too."""


class HubUnavailable(Exception):  # noqa: N818 - an expected state
    """The hub did not answer a request: no connection, no time, or an error of the server."""


def endpoint() -> str:
    """Return the URL of the Hugging Face hub, or `HF_ENDPOINT`."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def reachable(timeout: float = 3.0) -> bool:
    """Return whether the Hugging Face hub (or `HF_ENDPOINT`), or the proxy before it, takes connections.

    Args:
        timeout: Seconds to wait for the connection.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    try:
        with socket.create_connection(_address(), timeout=timeout):
            return True
    except (OSError, ValueError):  # ValueError: a port that is not a number
        return False


def _address() -> tuple[str, int]:
    """Return host and port of the hub, or of the proxy that the environment names for it."""
    from urllib.request import getproxies, proxy_bypass  # imports http and email, only needed here

    url = urlsplit(endpoint())
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(url.netloc.rpartition("@")[2]):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return url.hostname or "", url.port or PORTS.get(url.scheme, 443)


def upstream_content(weights: PublishedWeights, revision: str | None = None) -> Content | None:
    """Return the content that the hub has for published weights; None if it has no such file, or no hash of it.

    Args:
        weights: The weights.
        revision: A revision instead of that of the weights.

    Raises:
        HubUnavailable: The hub does not answer.
    """
    metadata = _metadata(weights, revision or weights.revision)
    sha256, commit = (metadata.etag or "", metadata.commit_hash or "") if metadata is not None else ("", "")
    if not SHA256.fullmatch(sha256) or not COMMIT.fullmatch(commit):
        return None
    return Content(sha256=sha256, commit=commit)


def has_file(weights: PublishedWeights) -> bool:
    """Return whether the hub has the file of published weights at their revision. Raises `HubUnavailable`."""
    return _metadata(weights, weights.revision) is not None


def _metadata(weights: PublishedWeights, revision: str) -> "HfFileMetadata | None":
    """Return what the hub states of a file, None if it refuses the request, as for files that it does not have."""
    # Importing it takes as long as the rest of planning.
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    url = hf_hub_url(weights.repository, WEIGHTS_FILE, revision=revision, endpoint=endpoint())
    try:
        return get_hf_file_metadata(url, timeout=TIMEOUT)
    except HfHubHTTPError as error:
        if error.response.status_code in REFUSALS:
            return None
        raise HubUnavailable(str(weights)) from error
    except Exception as error:  # (network errors of any kind)
        raise HubUnavailable(str(weights)) from error


def upstream_contents(weights: Iterable[PublishedWeights]) -> dict[PublishedWeights, Content | None]:
    """Return the content that the hub has for each of several published weights, None where it gives none."""

    def content(weights: PublishedWeights) -> Content | None:
        try:
            return upstream_content(weights)
        except HubUnavailable:
            return None

    listed = list(dict.fromkeys(weights))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return dict(zip(listed, pool.map(content, listed), strict=True))


def revision_of(weights: PublishedWeights, content: Content) -> str | None:
    """Return a revision at which the hub has a content of published weights, None if there is none.

    The revision of the weights itself is preferred, because the cache then knows it too. Raises `HubUnavailable`.
    """
    for revision in dict.fromkeys((weights.revision, content.commit)):
        upstream = upstream_content(weights, revision)
        if upstream is not None and upstream.sha256 == content.sha256:
            return revision
    return None
