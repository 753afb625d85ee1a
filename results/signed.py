"""Parquet files that contain a hash of their content, so that corruption is detected when they are read."""

import mmap
import re
from collections.abc import Mapping
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "content"
DIGITS = 32
UNSIGNED: Mapping[str, str] = {KEY: f"blake2b={'0' * DIGITS}"}
"""Metadata that a Parquet file needs before `sign`; the footer, after all data, stores it as plain text."""
_SIGNATURE = re.compile(rb"blake2b=([0-9a-f]{32})")


def sign(path: Path) -> None:
    """Write the hash of its content into a file that has the metadata `UNSIGNED`."""
    with path.open("r+b") as stream, closing(mmap.mmap(stream.fileno(), 0)) as content:
        start = content.rfind(b"blake2b=") + len(b"blake2b=")
        content[start : start + DIGITS] = _hash(content, start)


def is_intact(path: Path) -> bool | None:
    """Return whether the content of a file matches its hash; None for a file without a hash."""
    with path.open("rb") as stream:
        if not path.stat().st_size:
            return None
        with closing(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) as content:
            signature = _SIGNATURE.match(content, max(content.rfind(b"blake2b="), 0))
            return None if signature is None else signature[1] == _hash(content, signature.start(1))


def without_signature(schema: "pa.Schema") -> "pa.Schema":
    """Return a schema without the metadata of the hash."""
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != KEY.encode()}
    return schema.with_metadata(metadata or None)


def _hash(content: mmap.mmap, start: int) -> bytes:
    """Return the hash, in hexadecimal digits, of the content without the digits that begin at `start`."""
    hasher = blake2b(digest_size=DIGITS // 2)
    with memoryview(content) as view:
        hasher.update(view[:start])
        hasher.update(view[start + DIGITS :])
    return hasher.hexdigest().encode()
