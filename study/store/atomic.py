"""Write files atomically, and detect altered files by hashes."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.cache.atomic_files import atomic_path
from results.signed import UNSIGNED, is_intact, sign, without_signature
from study.errors import ConfigError, Problem

if TYPE_CHECKING:
    import pyarrow as pa

HASH = "blake2b"
"""Key of the hash of the other values in signed JSON."""


Damage = tuple[str, str]
"""Name of a damaged file, and a description of the damage."""
NOT_A_FILE = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP}
"""Errors for a path that is not a file, or whose parent is not a folder."""


@dataclass(frozen=True)
class Form:
    """The expected form of values stored as JSON.

    `is_sound` validates the values that this version reads. `names` are the only allowed keys of values without a
    hash, because a corrupted key of the hash would make signed values look unsigned. `None` allows any keys.
    """

    names: frozenset[str] | None
    is_sound: Callable[[dict[str, Any]], bool]


class AlteredFileError(ConfigError):
    """A stored file was altered. A run recreates it, unless `remedy` says otherwise; no command uses its content."""

    def __init__(self, where: str, problem: str, remedy: str = "`study run FILE` recreates it") -> None:
        self.where, self.problem, self.remedy = where, problem, remedy
        message = f"{problem}; allowed: files as they were written; {remedy}"
        super().__init__([Problem(path="", message=message)], where)

    def __reduce__(self) -> tuple[type["AlteredFileError"], tuple[Any, ...]]:
        # It is pickled between processes.
        return AlteredFileError, (self.where, self.problem, self.remedy)


def is_name(text: str) -> bool:
    """Return whether a text is a valid name inside a folder on any operating system."""
    return text not in {"", ".", ".."} and not any(char in "/\\\0" for char in text)


def inside(folder: Path, name: str) -> Path:
    """Return a path inside a folder. Raises `ValueError` for a name that leads out of it."""
    if not is_name(name):
        raise ValueError(f"{name!r} is no name inside {folder}; allowed: no / and no \\, not . and not ..; rename it")
    return folder / name


def writing_problem(folder: Path) -> str | None:
    """Return why no file can be created in a folder, None if it is writable. Creates the folder."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror}); allowed: a folder you may write; choose another"
    return None


def set_folder_aside(path: Path) -> Path | None:
    """Rename a folder at the path of a file; return its new path, None if there is no such folder."""
    if path.is_symlink() or not path.is_dir():
        return None
    renamed = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
    return path.rename(renamed)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def write_table(path: Path, table: "pa.Table", *, row_group_size: int | None = None) -> None:
    """Write a Parquet file with a hash of its content, atomically."""
    import pyarrow.parquet as pq

    schema = without_signature(table.schema)
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=row_group_size)
            writer.add_key_value_metadata(UNSIGNED)
        sign(temporary)


def intact_table(path: Path) -> Path:
    """Verify a Parquet file and return its path. Raises `AlteredFileError`, `FileNotFoundError`.

    Files of version 0.2.0 and earlier have no hash; only their metadata is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        intact = is_intact(path)
        if intact is None:
            pq.read_metadata(path)
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, pa.ArrowException) as error:
        raise AlteredFileError(str(path), "is damaged") from error
    if intact is False:
        raise AlteredFileError(str(path), "was altered after it was written")
    return path


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    write_atomic(path, json.dumps(value, indent=1))


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Read JSON; None if the file does not exist. Raises `ValueError` for invalid JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def signed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with their hash."""
    return {**value, HASH: _hash_of_values(value)}


def write_signed(path: Path, value: Mapping[str, Any]) -> None:
    """Write values as JSON with their hash."""
    write_json(path, signed(value))


def verified(value: object, form: Form) -> dict[str, Any] | None:
    """Return the values that were passed to `signed`; None if they were altered or have another form.

    Values without a hash, written by version 0.2.0 and earlier, are only checked for their form.
    """
    if not isinstance(value, dict):
        return None
    values = {name: part for name, part in value.items() if name != HASH}
    if HASH in value:
        intact = value[HASH] == _hash_of_values(values)
    else:
        intact = form.names is None or values.keys() <= form.names
    return values if intact and form.is_sound(values) else None


def read_signed(path: Path, form: Form) -> dict[str, Any] | None:
    """Return the values of a signed JSON file; None if it does not exist. Raises `AlteredFileError`; see `verified`."""
    try:
        content = read_json(path)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NOT_A_FILE:
            raise
        raise AlteredFileError(str(path), "is not the JSON that was written") from error
    if content is None and not path.exists():
        return None
    values = verified(content, form)
    if values is None:
        raise AlteredFileError(str(path), "was altered after it was written")
    return values


def _hash_of_values(value: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(value))  # as JSON is read: text as keys, no tuples
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


def is_newer(path: Path, source: Path) -> bool:
    """Return whether a file exists and is newer than its source."""
    return path.is_file() and path.stat().st_mtime_ns >= source.stat().st_mtime_ns


def hash_of(path: Path) -> str:
    """Return the BLAKE2b hash of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def manifest_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return a manifest of files: size, modification time and hash by name."""
    manifest = {}
    for name in names:
        status = (folder / name).stat()
        manifest[name] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "blake2b": hash_of(folder / name)}
    return manifest


def damage(folder: Path, manifest: Mapping[str, Mapping[str, Any]], *, every_byte: bool = False) -> Damage | None:
    """Return the first damaged file of a manifest, None if all are intact.

    Without `every_byte` a file is hashed only if its modification time differs, so that many stages are checked fast.
    """
    for name, entry in manifest.items():
        try:
            status = (folder / name).stat()
        except OSError:
            return name, f"{name} is missing"
        if status.st_size != entry["bytes"]:
            return name, f"{name} has {status.st_size} bytes, not the {entry['bytes']} that were written"
        hashed = every_byte or status.st_mtime_ns != entry["mtime_ns"]
        if hashed and hash_of(folder / name) != entry["blake2b"]:
            return name, f"{name} was altered after it was written"
    return None
