"""Digests: content hashes that identify stages.

The digest of a stage covers everything its weights depend on: resolved settings including defaults, component
versions, data, initial weights and seed. It excludes names, paths, devices and resources.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

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


def without_defaults(values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values without the entries that equal their default.

    Args:
        values: Nested mappings, e.g. `{"settings": {"augment": {"border": "constant"}}}`.
        defaults: Default of each entry by dotted path, e.g. `{"settings.augment.border": "constant"}`. Paths that
            `values` lacks are skipped.
    """
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for path, default in defaults.items():
        first, _, rest = path.partition(".")
        if rest and isinstance(kept.get(first), dict):
            kept[first] = without_defaults(kept[first], {rest: default})
        elif not rest and first in kept and kept[first] == default:
            del kept[first]
    return kept
