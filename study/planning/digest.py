"""Digests: the same work has one name, and nothing else has it.

A stage's digest covers all that its weights depend on: resolved settings with their defaults, component
versions, the data read, where it starts, its seed. It leaves out names, paths, devices and resources.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]

FORMAT = 1
"""Raised when the meaning of a digest changes as a whole."""


def digest(value: Json) -> str:
    """Return the 32 hexadecimal digits that name a JSON value. Raises `ValueError` on NaN and infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def combined(*parts: str) -> str:
    """Return the name of an ordered sequence of digests and short words."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()
