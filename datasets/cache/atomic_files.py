"""Atomic file writes, and files with a checksum that is verified on reading."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

HASH_BYTES = 16


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; the file written there replaces `path` if the block succeeds.

    Creates the folder. If the block raises, the temporary file is removed and `path` is unchanged; an `OSError` about
    the temporary file names `path` instead.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A random name, as several processes and machines may write the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)
        raise
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
