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

from datasets.cache.atomic_files import atomic_path
from study.errors import ConfigError, Problem, unknown
from study.store.atomic import is_name

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SCHEMES = ("s3", "gs")
OPTIONS = ("endpoint_override", "region", "scheme")
THREADS = 16
CHUNK = 2**23
LINE = 300
"""Maximum number of characters of a library message that are shown."""
PATIENCE_SECONDS = 300.0
"""Duration of retries if a store does not answer or refuses requests."""
PAUSES = 0.2, 10.0
"""Initial and maximum pause between retries in seconds; pauses double."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Entry:
    """Size and modification time of an object, by the clock of the store."""

    bytes: int
    mtime_ns: int


class StoreUnavailable(OSError):  # noqa: N818 - a state of the store, not a bug
    """The store did not answer, or refused requests, until the retries were exhausted."""


@dataclass(frozen=True)
class Remote:
    """The objects under `uri`. Keys are relative to it, separated by `/`; keys outside of it raise `ValueError`.

    The libraries of AWS and Google read credentials from the environment. Methods raise `StoreUnavailable`.
    """

    uri: str
    patience: float = PATIENCE_SECONDS

    def without_retries(self) -> "Remote":
        """Return the same store without retries."""
        return replace(self, patience=0.0)

    def entries(self, folder: str) -> dict[str, Entry]:
        """Return all objects below a folder by key; invalid keys are left out."""
        from pyarrow.fs import FileSelector, FileType

        filesystem, base = _open_filesystem(self.uri)
        selector = FileSelector(f"{base}/{_checked_key(folder)}", recursive=True, allow_not_found=True)
        infos: list[FileInfo] = self._retry(lambda: filesystem.get_file_info(selector), folder)
        entries = {info.path.removeprefix(f"{base}/"): _entry(info) for info in infos if info.type == FileType.File}
        return {key: entry for key, entry in entries.items() if is_key(key)}

    def read(self, key: str) -> bytes | None:
        """Return the content of an object; None if it does not exist."""

        def read() -> bytes:
            with filesystem.open_input_stream(path) as stream:
                content: bytes = stream.read()
            return content

        filesystem, path = self._locate(key)
        try:
            return self._retry(read, key)
        except FileNotFoundError:
            return None

    def get(self, key: str, target: Path) -> None:
        """Download an object to a file atomically. Raises `FileNotFoundError`."""

        def get() -> None:
            with filesystem.open_input_stream(path) as stream, temporary.open("wb") as file:
                shutil.copyfileobj(stream, file, CHUNK)

        filesystem, path = self._locate(key)
        with atomic_path(target) as temporary:
            self._retry(get, key)

    def write(self, key: str, content: bytes) -> Entry:
        """Write an object from memory."""

        def write() -> Entry:
            with filesystem.open_output_stream(path) as stream:
                stream.write(content)
            return _entry(filesystem.get_file_info(path))

        filesystem, path = self._locate(key)
        return self._retry(write, key)

    def put(self, file: Path, key: str) -> Entry:
        """Upload a file; the object becomes visible when it is complete."""
        from pyarrow.fs import LocalFileSystem, copy_files

        def put() -> Entry:
            copy_files(str(file), path, source_filesystem=LocalFileSystem(), destination_filesystem=filesystem)
            entry = _entry(filesystem.get_file_info(path))
            if entry.bytes != file.stat().st_size:
                raise OSError(f"{entry.bytes} bytes arrived")
            return entry

        filesystem, path = self._locate(key)
        return self._retry(put, key)

    def copy(self, key: str, target: str) -> None:
        """Copy an object within the store."""
        (filesystem, path), (_, target_path) = self._locate(key), self._locate(target)
        self._retry(lambda: filesystem.copy_file(path, target_path), key)

    def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        filesystem, path = self._locate(key)
        with suppress(FileNotFoundError):
            self._retry(lambda: filesystem.delete_file(path), key)

    def delete_folder(self, folder: str) -> None:
        """Remove all objects below a folder."""
        filesystem, path = self._locate(folder)
        with suppress(FileNotFoundError):
            self._retry(lambda: filesystem.delete_dir(path), folder)

    def _locate(self, key: str) -> "tuple[FileSystem, str]":
        filesystem, base = _open_filesystem(self.uri)
        return filesystem, f"{base}/{_checked_key(key)}"

    def _retry(self, call: Callable[[], T], key: str) -> T:
        """Call with retries; `key` is for messages."""
        pause, max_pause = PAUSES
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
            pause = min(2 * pause, max_pause)


def join_uri(uri: str, key: str) -> str:
    """Return the URI of a key; the query of `uri` is kept."""
    base, separator, query = uri.partition("?")
    return f"{base.rstrip('/')}/{key}{separator}{query}"


def is_uri(text: str) -> bool:
    """Return whether a storage is named by a URI, not by a path."""
    return "://" in text


def checked_uri(text: str) -> str:
    """Return the normalized URI. Raises `ConfigError` if it is not supported or contains credentials."""
    parts = urlsplit(text)
    allowed = "allowed: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
    if parts.scheme not in SCHEMES:
        raise _uri_error(f"{parts.scheme}://", f"{unknown('scheme', parts.scheme, SCHEMES)}; {allowed}")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    options = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if "@" in parts.netloc or any("key" in name or "token" in name or "secret" in name for name in options):
        remedy = "take them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what the store's library reads"
        raise _uri_error(shown, f"holds credentials, which logs would show; {allowed}, credentials apart; {remedy}")
    unknown_options = [name for name in options if name not in OPTIONS]
    if unknown_options:
        raise _uri_error(shown, f"{unknown('option', unknown_options[0], OPTIONS)}; remove it")
    path = parts.path.strip("/")
    if not parts.netloc or not re.fullmatch(r"[\w.~/-]*", path, re.ASCII) or (path and not is_key(path)):
        raise _uri_error(shown, f"is no bucket with a prefix; {allowed}; name one")
    return f"{parts.scheme}://{parts.netloc}{'/' if path else ''}{path}{'?' if parts.query else ''}{parts.query}"


def is_key(key: str) -> bool:
    """Return whether a key is valid and cannot lead out of its prefix or folder."""
    return all(is_name(part) for part in key.split("/"))


def for_each(call: Callable[[U], object], items: Iterable[U]) -> None:
    """Call a function for each item, in parallel threads: object stores have high latency and throughput."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(call, items):
            pass


def problem(remote: Remote) -> str | None:
    """Return why a store cannot be read, None if it can."""
    from pyarrow.fs import FileType

    names = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL; Google's default credentials"
    hint = f"check its name, credentials and endpoint ({names})"
    allowed = f"allowed: a bucket that this machine may read and write; {hint}"
    try:
        filesystem, base = _open_filesystem(remote.uri)
        bucket = base.partition("/")[0]
        if filesystem.get_file_info(bucket).type == FileType.NotFound:
            return f"there is no bucket {bucket}; {allowed}"
    except (OSError, ValueError) as error:
        return f"cannot be read ({_first_line(error)}); {allowed}"
    return None


def writing_problem(remote: Remote) -> str | None:
    """Return why a store is not writable, None if it is."""
    key = f".probe-{uuid.uuid4().hex}"
    try:
        remote.without_retries().write(key, b"")
        remote.without_retries().delete(key)
    except OSError as error:
        return f"{remote.uri} cannot be written ({_first_line(error)}); allowed: a prefix you may write; choose another"
    return None


def _first_line(error: Exception) -> str:
    return textwrap.shorten(str(error), LINE, placeholder=" ...")


@functools.cache
def _open_filesystem(uri: str) -> "tuple[FileSystem, str]":
    """Return the filesystem and the path of the prefix; cached per process."""
    from pyarrow.fs import FileSystem

    # With S3 a small object then takes one request, not three; Google's library retries for 15 minutes by default.
    option = "allow_delayed_open=true" if uri.startswith("s3:") else "retry_limit_seconds=20"
    filesystem, base = FileSystem.from_uri(f"{uri}{'&' if '?' in uri else '?'}{option}")
    return filesystem, base.rstrip("/")


def _checked_key(key: str) -> str:
    if not is_key(key):
        raise ValueError(f"{key!r} would leave the storage; allowed: names joined by /; rename it")
    return key


def _entry(info: "FileInfo") -> Entry:
    return Entry(bytes=info.size or 0, mtime_ns=info.mtime_ns or 0)


def _uri_error(shown: str, message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], f"--storage {shown}")


def group_by_folder(entries: Mapping[str, Entry], depth: int) -> dict[str, dict[str, Entry]]:
    """Group entries by the first `depth` names of their key, then by the rest; shorter keys are left out."""
    groups: dict[str, dict[str, Any]] = {}
    for key, entry in entries.items():
        parts = key.split("/", depth)
        if len(parts) > depth:
            groups.setdefault("/".join(parts[:depth]), {})[parts[depth]] = entry
    return groups
