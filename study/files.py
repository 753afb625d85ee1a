"""Writing files so that a reader sees all of one or none of it, and knowing when one was altered."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def is_name(text: str) -> bool:
    """Return whether a text names something inside a folder, and nothing outside of it, on any system."""
    return text not in {"", ".", ".."} and not any(char in "/\\\0" for char in text)


def inside(folder: Path, name: str) -> Path:
    """Return a place in a folder. Raises `ValueError` for a name that leads out of it."""
    if not is_name(name):
        raise ValueError(f"{name!r} is no name inside {folder}; allowed: no / and no \\, not . and not ..; rename it")
    return folder / name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden file, no other writer's, that becomes `path` where the block ends well."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file aside and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def write_table(path: Path, table: "pa.Table", *, row_group_size: int | None = None) -> None:
    """Write Parquet, whole or not at all."""
    import pyarrow.parquet as pq

    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd", row_group_size=row_group_size)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever was written
    """Read JSON; None where the file is not there (yet)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def is_newer(path: Path, source: Path) -> bool:
    """Return whether a file is there and was written after its source."""
    return path.is_file() and path.stat().st_mtime_ns >= source.stat().st_mtime_ns


def hash_of(path: Path) -> str:
    """Return a file's BLAKE2b hash."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def seal(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return size, time and hash of files, to be kept beside them."""
    sealed = {}
    for name in names:
        status = (folder / name).stat()
        sealed[name] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "blake2b": hash_of(folder / name)}
    return sealed


def damage(folder: Path, sealed: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return what is wrong with sealed files, None where nothing is.

    A file is hashed again only when its time differs, so that checking thousands of stages is cheap.
    """
    for name, mark in sealed.items():
        try:
            status = (folder / name).stat()
        except OSError:
            return f"{name} is missing"
        if status.st_size != mark["bytes"]:
            return f"{name} has {status.st_size} bytes, not the {mark['bytes']} that were written"
        if status.st_mtime_ns != mark["mtime_ns"] and hash_of(folder / name) != mark["blake2b"]:
            return f"{name} was altered after it was written"
    return None
