"""Atomic file writes, and files with a checksum that is verified on reading."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

HASH_BYTES = 16


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces `path`, or is removed if writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_hashed(path: Path, content: bytes) -> None:
    """Write a file followed by a hash of its content."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.write(_hash(content))


def read_hashed(path: Path) -> bytes | None:
    """Return the content of a file written by `write_hashed`, None if it is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[:-HASH_BYTES]
    return content if data[-HASH_BYTES:] == _hash(content) else None


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=HASH_BYTES).digest()
