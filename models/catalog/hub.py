"""Whether published weights can be fetched from here. Imports no torch: planning asks."""

import os
import socket
from urllib.parse import urlsplit


def reachable(timeout: float = 3.0) -> bool:
    """Return whether the Hugging Face hub (or `HF_ENDPOINT`) answers; `timeout` in seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    place = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        with socket.create_connection((place.hostname or "", port), timeout=timeout):
            return True
    except OSError:
        return False
