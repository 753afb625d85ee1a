"""Reachability of the Hugging Face hub. Used by planning, so it does not import torch."""

import os
import socket
from urllib.parse import urlsplit


def reachable(timeout: float = 3.0) -> bool:
    """Return whether the Hugging Face hub (or `HF_ENDPOINT`) answers; `timeout` in seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    url = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        with socket.create_connection((url.hostname or "", port), timeout=timeout):
            return True
    except OSError:
        return False
