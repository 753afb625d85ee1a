"""Writing files so that a reader sees all of one or none of it, and knowing when one was altered."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.signed import UNSIGNED, is_intact, sign, without_signature
from study.errors import ConfigError, Problem

if TYPE_CHECKING:
    import pyarrow as pa

HASH = "blake2b"
"""Key under which JSON carries the hash of its other values."""


Damage = tuple[str, str]
"""Name of a file, and what is wrong with it."""
NOT_A_FILE = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP}
"""Errors that say that something else stands in the place of a file or of one of its folders."""


@dataclass(frozen=True)
class Form:
    """Form of values that are stored as JSON.

    `is_sound` checks the values that this version reads. Values without a hash must have no other `names`: one changed
    bit in the name of the hash would make signed values look like unsigned ones. `None` allows any names.
    """

    names: frozenset[str] | None
    is_sound: Callable[[dict[str, Any]], bool]


class AlteredFileError(ConfigError):
    """A stored file is not what was written. A run makes it again; no command uses its content."""

    def __init__(self, where: str, what: str) -> None:
        self.where, self.what = where, what
        message = f"{what}; allowed: files as they were written; `study run FILE` makes it again"
        super().__init__([Problem(path="", message=message)], where)

    def __reduce__(self) -> tuple[type["AlteredFileError"], tuple[Any, ...]]:
        return AlteredFileError, (self.where, self.what)  # it crosses processes


def is_name(text: str) -> bool:
    """Return whether a text names something inside a folder, and nothing outside of it, on any system."""
    return text not in {"", ".", ".."} and not any(char in "/\\\0" for char in text)


def inside(folder: Path, name: str) -> Path:
    """Return a place in a folder. Raises `ValueError` for a name that leads out of it."""
    if not is_name(name):
        raise ValueError(f"{name!r} is no name inside {folder}; allowed: no / and no \\, not . and not ..; rename it")
    return folder / name


def writing_problem(folder: Path) -> str | None:
    """Return why no file can be made in a folder, which is made too; None where one can."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror}); allowed: a folder you may write; choose another"
    return None


def set_folder_aside(place: Path) -> Path | None:
    """Rename a folder that stands in the place of a file; return its new path, None where there is none."""
    if place.is_symlink() or not place.is_dir():
        return None
    aside = place.with_name(f"{place.name}.damaged-{uuid.uuid4().hex[:8]}")
    return place.rename(aside)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden file, no other writer's, that becomes `path` where the block ends well."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        if error.filename == str(aside):
            error.filename = str(path)
        raise
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
    """Write Parquet with a hash of its content, whole or not at all."""
    import pyarrow.parquet as pq

    schema = without_signature(table.schema)
    with replacing(path) as aside:
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=row_group_size)
            writer.add_key_value_metadata(UNSIGNED)
        sign(aside)


def intact_table(path: Path) -> Path:
    """Return the path of a Parquet file that is as it was written. Raises `AlteredFileError`, `FileNotFoundError`.

    Files of version 0.2.0 and earlier carry no hash; of these only the form is checked.
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
    """Write JSON aside and rename it into place."""
    write_atomic(path, json.dumps(value, indent=1))


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever was written
    """Read JSON; None where the file is not there (yet). Raises `ValueError` where it is not JSON."""
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
    """Return what `signed` was called with; None for anything else, also for values of another form.

    Values without a hash, as version 0.2.0 and earlier wrote them, are checked by their form alone.
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
    """Return the values of a JSON file; None where it is not there (yet). Raises `AlteredFileError`; see `verified`."""
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
    plain = json.loads(json.dumps(value))  # as it will be read: text as keys, no tuples
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


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


def damage(folder: Path, sealed: Mapping[str, Mapping[str, Any]], *, every_byte: bool = False) -> Damage | None:
    """Return the first sealed file that is not as it was written, None where all are.

    Without `every_byte` a file is hashed only when its time differs, so that checking thousands of stages is cheap.
    """
    for name, mark in sealed.items():
        try:
            status = (folder / name).stat()
        except OSError:
            return name, f"{name} is missing"
        if status.st_size != mark["bytes"]:
            return name, f"{name} has {status.st_size} bytes, not the {mark['bytes']} that were written"
        hashed = every_byte or status.st_mtime_ns != mark["mtime_ns"]
        if hashed and hash_of(folder / name) != mark["blake2b"]:
            return name, f"{name} was altered after it was written"
    return None
