"""Cache of decoded masks and resized images, written while files are hashed so that they are decoded only once.

Each kind has a folder of Arrow files next to the prepared arrays, and is evicted like these when the cache needs room.
Missing or damaged extracts are decoded again.

Without them the first index and preparation of a data set take 1.3 to 1.4 times as long for images of 512 pixels a side
(JPEG, PNG), 1.6 to 2 times for 2048 pixels (PNG, DICOM); later ones read the prepared arrays.
"""

import math
import os
import shutil
import uuid
import zlib
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np

from datasets.cache.arrays import bytes_in, entries_in
from datasets.cache.atomic_files import atomic_path
from datasets.decoding.decode import channels_of
from datasets.settings import ImageSettings
from datasets.source import Pixels
from datasets.targets import fit_image, is_convertible
from datasets.versions import VERSIONS

if TYPE_CHECKING:
    import pyarrow as pa

CODEC: Final = "zstd"
BATCH_BYTES: Final = 2**24
"""Size at which a file is written."""
BUDGET_BYTES: Final = 2**34
"""Per data set, outdated extracts included; images beyond it are decoded again."""
DISK_SHARE: Final = 1 / 8
"""Maximum share of the free disk space, as the prepared arrays need space too."""


@dataclass(frozen=True)
class ExtractFolders:
    """The folders with the extracts of one data set, one per kind, with a common prefix."""

    parent: Path
    key: str

    def of(self, kind: str) -> Path:
        """Return the folder of one kind."""
        return self.parent / f"{self.key}-{kind}"

    def folders(self) -> list[Path]:
        """Return the existing folders."""
        return entries_in(self.parent, f"{self.key}-*")


@dataclass(frozen=True, kw_only=True)
class _Extract:
    """Compressed pixels of a file of this height and width. `name` identifies the file and its state."""

    name: str
    height: int
    width: int
    pixels: bytes
    check: int


def _compress(name: str, original: Pixels, pixels: Pixels) -> _Extract:
    import pyarrow as pa

    height, width = original.shape[:2]
    codec = pa.Codec(CODEC, compression_level=1)
    compressed = codec.compress(np.ascontiguousarray(pixels).reshape(-1), asbytes=True)
    return _Extract(
        name=name, height=height, width=width, pixels=compressed, check=_checksum(name, height, width, compressed)
    )


def _checksum(name: str, height: int, width: int, compressed: "bytes | pa.Buffer") -> int:
    return zlib.crc32(compressed, zlib.crc32(f"{name} {height} {width}".encode()))


@cache
def _kind_key(settings: ImageSettings | None) -> str:
    """Return a key for images with these settings, or for masks (None)."""
    text = f"{VERSIONS['preparation']} {settings.model_dump_json() if settings is not None else 'masks'}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


class ExtractWriter:
    """Writes extracts; thread-safe. Stops silently when there is no space left, as extracts are optional."""

    def __init__(self, folders: ExtractFolders, fits: Collection[ImageSettings]) -> None:
        self._folders = folders
        self._fits = tuple(fits)
        self._lock = Lock()
        self._buffer: dict[str, list[_Extract]] = defaultdict(list)
        self._buffered_bytes = 0
        self._free_bytes = 0
        with suppress(OSError):
            folders.parent.mkdir(parents=True, exist_ok=True)
            self._free_bytes = self._make_room()

    def _make_room(self) -> int:
        """Delete incomplete files, and all extracts if they fill half the budget; return the bytes left to write."""
        used_bytes = 0
        for folder in self._folders.folders():
            for file in folder.glob("*.tmp"):
                file.unlink(missing_ok=True)
            used_bytes += bytes_in(folder)
        if used_bytes > BUDGET_BYTES // 2:  # mostly extracts of files that have changed
            for folder in self._folders.folders():
                shutil.rmtree(folder, ignore_errors=True)
            used_bytes = 0
        return min(BUDGET_BYTES - used_bytes, int(shutil.disk_usage(self._folders.parent).free * DISK_SHARE))

    def mask(self, name: str, pixels: Pixels) -> None:
        """Add a mask of (height, width) ids or 0/1."""
        if self._free_bytes > 0:
            self._add(_kind_key(None), _compress(name, pixels, pixels))

    def image(self, name: str, pixels: Pixels) -> None:
        """Add an image (height, width[, channels]), resized according to each of the settings that suit it."""
        for settings in self._fits:
            if self._free_bytes > 0 and is_convertible(channels_of(pixels), settings.channels):
                self._add(_kind_key(settings), _compress(name, pixels, fit_image(pixels, settings)))

    def _add(self, kind: str, extract: _Extract) -> None:
        with self._lock:
            self._free_bytes -= len(extract.pixels)
            self._buffered_bytes += len(extract.pixels)
            self._buffer[kind].append(extract)
            if self._buffered_bytes > BATCH_BYTES:
                self._write()

    def flush(self) -> None:
        """Write the buffered extracts."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        for kind, extracts in self._buffer.items():
            try:
                _save(extracts, self._folders.of(kind))
            except OSError:
                self._free_bytes = 0
        self._buffer.clear()
        self._buffered_bytes = 0


def _save(extracts: list[_Extract], folder: Path) -> None:
    import pyarrow as pa

    types = {"height": pa.int32(), "width": pa.int32(), "pixels": pa.binary(), "check": pa.uint32()}
    schema = pa.schema({"name": pa.string(), **types})
    columns = {name: [getattr(extract, name) for extract in extracts] for name in schema.names}
    with (
        atomic_path(folder / f"{uuid.uuid4().hex}.arrow") as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as file,
    ):
        file.write_table(pa.table(columns, schema=schema))


class Extracts:
    """Reads extracts, memory-mapped on first use."""

    def __init__(self, folders: ExtractFolders) -> None:
        self._folders = folders
        self._indices: dict[str, _ExtractIndex] = {}
        self._lock = Lock()

    def mask(self, name: str) -> Pixels | None:
        """Return the mask of a file, (height, width) ids or 0/1, None if it has to be decoded."""
        entry = self._index(_kind_key(None)).pixels(name)
        return None if entry is None else entry[0]

    def image(self, name: str, settings: ImageSettings) -> tuple[Pixels, tuple[int, int]] | None:
        """Return (*settings.shape, channels) pixels and the original (height, width), None if it has to be decoded."""
        return self._index(_kind_key(settings)).pixels(name, (*settings.shape, settings.channels))

    def forget(self, settings: ImageSettings) -> None:
        """Delete images resized with these settings."""
        kind = _kind_key(settings)
        with self._lock:
            self._indices.pop(kind, None)
        shutil.rmtree(self._folders.of(kind), ignore_errors=True)

    def _index(self, kind: str) -> "_ExtractIndex":
        with self._lock:
            if kind not in self._indices:
                self._indices[kind] = _ExtractIndex(self._folders.of(kind))
            return self._indices[kind]


class _ExtractIndex:
    def __init__(self, folder: Path) -> None:
        with suppress(OSError):
            os.utime(folder)  # marks it as recently used for the eviction
        self._positions = {
            name: (batch, row)
            for path in folder.glob("*.arrow")
            for batch in _load_batches(path)
            for row, name in enumerate(batch.column("name").to_pylist())
        }

    def pixels(self, name: str, shape: tuple[int, ...] | None = None) -> tuple[Pixels, tuple[int, int]] | None:
        """Return pixels of this shape (default: that of the file), and (height, width) of the file."""
        import pyarrow as pa

        location = self._positions.get(name)
        if location is None:
            return None
        batch, row = location
        height, width, check = (batch.column(name)[row].as_py() for name in ("height", "width", "check"))
        compressed = batch.column("pixels")[row].as_buffer()
        if check != _checksum(name, height, width, compressed):
            return None
        shape = shape or (height, width)
        pixels = np.frombuffer(pa.decompress(compressed, math.prod(shape), CODEC), np.uint8).reshape(shape)
        return pixels, (height, width)


def _load_batches(path: Path) -> "list[pa.RecordBatch]":
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_batches()  # type: ignore[no-any-return]
    except (OSError, pa.ArrowException):  # removed meanwhile, truncated by a crash, or not ours
        return []
