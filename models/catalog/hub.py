"""Requests to the Hugging Face hub. Used by planning, so it does not import torch."""

import os
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from models.catalog.hub_cache import WEIGHTS_FILE
from models.catalog.published import COMMIT, SHA256, Content, PublishedWeights

TIMEOUT = 5.0
"""Seconds to wait for an answer about a file."""
CONNECTIONS = 8


def endpoint() -> str:
    """Return the URL of the Hugging Face hub, or `HF_ENDPOINT`."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def reachable(timeout: float = 3.0) -> bool:
    """Return whether the Hugging Face hub (or `HF_ENDPOINT`) answers; `timeout` in seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    url = urlsplit(endpoint())
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        with socket.create_connection((url.hostname or "", port), timeout=timeout):
            return True
    except OSError:
        return False


def upstream_content(weights: PublishedWeights, revision: str | None = None) -> Content | None:
    """Return the content that the hub has for published weights; None if it does not answer or has no hash.

    Args:
        weights: The weights.
        revision: A revision instead of that of the weights.
    """
    # Importing it takes as long as the rest of planning.
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(weights.repository, WEIGHTS_FILE, revision=revision or weights.revision, endpoint=endpoint())
    try:
        metadata = get_hf_file_metadata(url, timeout=TIMEOUT)
    except Exception:  # noqa: BLE001  (all network errors mean the same here)
        return None
    sha256, commit = metadata.etag or "", metadata.commit_hash or ""
    if not SHA256.fullmatch(sha256) or not COMMIT.fullmatch(commit):
        return None
    return Content(sha256=sha256, commit=commit)


def upstream_contents(weights: Iterable[PublishedWeights]) -> dict[PublishedWeights, Content | None]:
    """Return the content that the hub has for each of several published weights."""
    listed = list(dict.fromkeys(weights))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return dict(zip(listed, pool.map(upstream_content, listed), strict=True))


def revision_of(weights: PublishedWeights, content: Content) -> str | None:
    """Return a revision at which the hub has a content of published weights, None if there is none.

    The revision of the weights itself is preferred, because the cache then knows it too.
    """
    for revision in dict.fromkeys((weights.revision, content.commit)):
        upstream = upstream_content(weights, revision)
        if upstream is not None and upstream.sha256 == content.sha256:
            return revision
    return None
