"""Digests: content hashes that identify stages.

The digest of a stage covers everything its weights depend on: resolved settings including defaults, component
versions, data, initial weights and seed. It excludes names, paths, devices and resources.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]

FORMAT = 1
"""Version of the digest; increased to invalidate all digests."""


def digest(value: Json) -> str:
    """Return the hash of a JSON value as 32 hexadecimal digits. Raises `ValueError` on NaN and infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def combined(*parts: str) -> str:
    """Return the hash of an ordered sequence of digests and short strings."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()
