"""Files of an object store under one prefix: `s3://bucket/prefix`, `gs://bucket/prefix`, through pyarrow."""

import errno
import functools
import random
import re
import shutil
import textwrap
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from study.errors import ConfigError, Problem, unknown
from study.store.atomic import is_name

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SCHEMES = ("s3", "gs")
OPTIONS = ("endpoint_override", "region", "scheme")
THREADS = 16
CHUNK = 2**23
LINE = 300
"""Letters of what a store's library says that are shown."""
PATIENCE_SECONDS = 300.0
"""How long a store may give no answer, or refuse, before a worker gives up."""
PAUSES = 0.2, 10.0
"""Seconds before the second attempt, and at most between later ones; each pause is twice the one before."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Entry:
    """One object: its size and when the store wrote it, by the store's own clock."""

    bytes: int
    mtime_ns: int


class StoreUnavailable(OSError):  # noqa: N818 - a state of the store, not a bug
    """The store gave no answer, or refused, for as long as there was patience."""


@dataclass(frozen=True)
class Remote:
    """What lies under `uri`. Keys are relative to it, with `/`; none of them can leave it (`ValueError`).

    Credentials come from the environment, as the libraries of AWS and Google read them. Raises `StoreUnavailable`.
    """

    uri: str
    patience: float = PATIENCE_SECONDS

    def hasty(self) -> "Remote":
        """Return the same store, asked once."""
        return replace(self, patience=0.0)

    def entries(self, folder: str) -> dict[str, Entry]:
        """Return all objects below a folder by their keys. Keys that no storage could have written are left out."""
        from pyarrow.fs import FileSelector, FileType

        filesystem, base = _opened(self.uri)
        selector = FileSelector(f"{base}/{_checked(folder)}", recursive=True, allow_not_found=True)
        infos: list[FileInfo] = self._asked(lambda: filesystem.get_file_info(selector), folder)
        found = {info.path.removeprefix(f"{base}/"): _entry(info) for info in infos if info.type == FileType.File}
        return {key: entry for key, entry in found.items() if is_key(key)}

    def read(self, key: str) -> bytes | None:
        """Return an object's content; None where there is none."""

        def read() -> bytes:
            with filesystem.open_input_stream(path) as stream:
                content: bytes = stream.read()
            return content

        filesystem, path = self._place(key)
        try:
            return self._asked(read, key)
        except FileNotFoundError:
            return None

    def get(self, key: str, place: Path) -> None:
        """Fetch an object into a file, whole or not at all. Raises `FileNotFoundError`."""

        def get() -> None:
            with filesystem.open_input_stream(path) as stream, aside.open("wb") as file:
                shutil.copyfileobj(stream, file, CHUNK)

        filesystem, path = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f".{uuid.uuid4().hex}")
        try:
            self._asked(get, key)
            aside.replace(place)
        finally:
            aside.unlink(missing_ok=True)

    def write(self, key: str, content: bytes) -> Entry:
        """Write an object at once."""

        def write() -> Entry:
            with filesystem.open_output_stream(path) as stream:
                stream.write(content)
            return _entry(filesystem.get_file_info(path))

        filesystem, path = self._place(key)
        return self._asked(write, key)

    def put(self, file: Path, key: str) -> Entry:
        """Write an object from a file; it is visible once it is whole."""
        from pyarrow.fs import LocalFileSystem, copy_files

        def put() -> Entry:
            copy_files(str(file), path, source_filesystem=LocalFileSystem(), destination_filesystem=filesystem)
            entry = _entry(filesystem.get_file_info(path))
            if entry.bytes != file.stat().st_size:
                raise OSError(f"{entry.bytes} bytes arrived")
            return entry

        filesystem, path = self._place(key)
        return self._asked(put, key)

    def copy(self, key: str, other: str) -> None:
        """Copy an object inside the store."""
        (filesystem, path), (_, target) = self._place(key), self._place(other)
        self._asked(lambda: filesystem.copy_file(path, target), key)

    def delete(self, key: str) -> None:
        """Remove an object where there is one."""
        filesystem, path = self._place(key)
        with suppress(FileNotFoundError):
            self._asked(lambda: filesystem.delete_file(path), key)

    def delete_folder(self, folder: str) -> None:
        """Remove all objects below a folder."""
        filesystem, path = self._place(folder)
        with suppress(FileNotFoundError):
            self._asked(lambda: filesystem.delete_dir(path), folder)

    def _place(self, key: str) -> "tuple[FileSystem, str]":
        filesystem, base = _opened(self.uri)
        return filesystem, f"{base}/{_checked(key)}"

    def _asked(self, call: Callable[[], T], key: str) -> T:
        pause, most = PAUSES
        end = time.monotonic() + self.patience
        while True:
            try:
                return call()
            except OSError as error:
                if isinstance(error, FileNotFoundError) or error.errno == errno.ENOSPC:
                    raise
                if time.monotonic() + pause > end:
                    raise StoreUnavailable(f"{self.uri}: {key}: {error}") from error
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, most)


def under(uri: str, key: str) -> str:
    """Return the URI of what lies at a key."""
    base, mark, query = uri.partition("?")
    return f"{base.rstrip('/')}/{key}{mark}{query}"


def is_uri(text: str) -> bool:
    """Return whether a storage is named by a URI, not by a path."""
    return "://" in text


def checked_uri(text: str) -> str:
    """Return the URI as it is used and shown. Raises `ConfigError` where it is none of ours or holds credentials."""
    parts = urlsplit(text)
    allowed = "allowed: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
    if parts.scheme not in SCHEMES:
        raise _refused(f"{parts.scheme}://", f"{unknown('scheme', parts.scheme, SCHEMES)}; {allowed}")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    named = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if "@" in parts.netloc or any("key" in name or "token" in name or "secret" in name for name in named):
        remedy = "take them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what the store's library reads"
        raise _refused(shown, f"holds credentials, which logs would show; {allowed}, credentials apart; {remedy}")
    strange = [name for name in named if name not in OPTIONS]
    if strange:
        raise _refused(shown, f"{unknown('option', strange[0], OPTIONS)}; remove it")
    path = parts.path.strip("/")
    if not parts.netloc or not re.fullmatch(r"[\w.~/-]*", path, re.ASCII) or (path and not is_key(path)):
        raise _refused(shown, f"is no bucket with a prefix; {allowed}; name one")
    return f"{parts.scheme}://{parts.netloc}{'/' if path else ''}{path}{'?' if parts.query else ''}{parts.query}"


def is_key(key: str) -> bool:
    """Return whether a key stays below its prefix, and its file below the folder it is fetched into."""
    return all(is_name(part) for part in key.split("/"))


def each(work: Callable[[U], object], things: Iterable[U], *, at_once: bool = True) -> None:
    """Do something with each thing, several `at_once`: an object store answers late, but many."""
    with ThreadPoolExecutor(THREADS if at_once else 1) as pool:
        for _ in pool.map(work, things):
            pass


def problem(remote: Remote) -> str | None:
    """Return why a store cannot be read, None where it can."""
    from pyarrow.fs import FileType

    names = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL; Google's default credentials"
    hint = f"check its name, credentials and endpoint ({names})"
    allowed = f"allowed: a bucket that this machine may read and write; {hint}"
    try:
        filesystem, base = _opened(remote.uri)
        bucket = base.partition("/")[0]
        if filesystem.get_file_info(bucket).type == FileType.NotFound:
            return f"there is no bucket {bucket}; {allowed}"
    except (OSError, ValueError) as error:
        return f"cannot be read ({_first_line(error)}); {allowed}"
    return None


def writing_problem(remote: Remote) -> str | None:
    """Return why nothing can be written, None where it can."""
    key = f".probe-{uuid.uuid4().hex}"
    try:
        remote.hasty().write(key, b"")
        remote.hasty().delete(key)
    except OSError as error:
        return f"{remote.uri} cannot be written ({_first_line(error)}); allowed: a prefix you may write; choose another"
    return None


def _first_line(error: Exception) -> str:
    return textwrap.shorten(str(error), LINE, placeholder=" ...")


@functools.cache
def _opened(uri: str) -> "tuple[FileSystem, str]":
    """Return the filesystem and the path of the prefix, once a process."""
    from pyarrow.fs import FileSystem

    # A small object takes one request of S3 then, not three; Google's library would try for a quarter of an hour.
    option = "allow_delayed_open=true" if uri.startswith("s3:") else "retry_limit_seconds=20"
    filesystem, base = FileSystem.from_uri(f"{uri}{'&' if '?' in uri else '?'}{option}")
    return filesystem, base.rstrip("/")


def _checked(key: str) -> str:
    if not is_key(key):
        raise ValueError(f"{key!r} would leave the storage; allowed: names joined by /; rename it")
    return key


def _entry(info: "FileInfo") -> Entry:
    return Entry(bytes=info.size or 0, mtime_ns=info.mtime_ns or 0)


def _refused(shown: str, message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], f"--storage {shown}")


def grouped(entries: Mapping[str, Entry], depth: int) -> dict[str, dict[str, Entry]]:
    """Return entries by their first `depth` names, then by the rest of the key; shorter keys are left out."""
    groups: dict[str, dict[str, Any]] = {}
    for key, entry in entries.items():
        parts = key.split("/", depth)
        if len(parts) > depth:
            groups.setdefault("/".join(parts[:depth]), {})[parts[depth]] = entry
    return groups
