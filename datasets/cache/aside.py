"""Files that appear complete or not at all, and files whose content is verified when they are read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

HASH_BYTES = 16


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path to write to. The file written there replaces `path`, and is removed where writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_hashed(path: Path, content: bytes) -> None:
    """Write a file with the hash of its content behind it."""
    with written_aside(path) as aside, aside.open("wb") as file:
        file.write(content)
        file.write(_hash(content))


def read_hashed(path: Path) -> bytes | None:
    """Return the content of a file of `write_hashed`, None where there is none or a bit of it changed."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[:-HASH_BYTES]
    return content if data[-HASH_BYTES:] == _hash(content) else None


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=HASH_BYTES).digest()
