"""Damage of files in a storage that does not change their modification time."""

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

Damage = Callable[[bytes], bytes]

DAMAGES: Mapping[str, Damage] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "binary": lambda content: random.Random(len(content)).randbytes(len(content) + 64),
    "one bit flipped": lambda content: flipped(content, 4 * len(content)),
    "{}": lambda content: b"{}\n",
    "[]": lambda content: b"[]\n",
    "null": lambda content: b"null\n",
    "number": lambda content: b"7\n",
    "wrong types": lambda content: b'{"stages": 3, "state": [], "files": "x", "time": "y", "op_code": "z"}\n',
    "nested": lambda content: b"[" * 100_000,
}


def damage(file: Path, kind: Damage) -> None:
    """Replace the content of a file, without changes of its hard links and its modification time."""
    status, content = file.stat(), file.read_bytes()
    file.unlink()
    file.write_bytes(kind(content))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(file: Path, bit: int) -> None:
    """Change one bit of a file."""
    damage(file, lambda content: flipped(content, bit))


def flipped(content: bytes, bit: int) -> bytes:
    """Return a content with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
