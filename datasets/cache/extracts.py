"""What reading files leaves for preparing, which then need not decode them again: masks, and images as they are fitted.

Each kind has a folder of Arrow files beside the prepared arrays, and is removed like these when the cache needs room.
What is not there, or damaged, is decoded again.
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
from datasets.cache.aside import written_aside
from datasets.settings import ImageSettings
from datasets.source import Pixels
from datasets.targets import fit_image
from datasets.versions import VERSIONS

if TYPE_CHECKING:
    import pyarrow as pa

CODEC: Final = "zstd"
BATCH_BYTES: Final = 2**24
"""Of a file."""
BUDGET_BYTES: Final = 2**34
"""Of one data set, what is out of date included; what is beyond it is decoded again."""
DISK_SHARE: Final = 1 / 8
"""Of what is free, that a reading takes at most: the arrays that are prepared then need room too."""


@dataclass(frozen=True)
class Place:
    """Where the extracts of one data set are: a folder a kind, whose names begin alike."""

    parent: Path
    key: str

    def of(self, kind: str) -> Path:
        """Return the folder of a kind."""
        return self.parent / f"{self.key}-{kind}"

    def folders(self) -> list[Path]:
        """Return the folders that there are."""
        return entries_in(self.parent, f"{self.key}-*")


@dataclass(frozen=True, kw_only=True)
class _Extract:
    """Compressed pixels of a file of this height and width. `name` says which file, and as it was when."""

    name: str
    height: int
    width: int
    pixels: bytes
    check: int


def _packed(name: str, original: Pixels, pixels: Pixels) -> _Extract:
    import pyarrow as pa

    height, width = original.shape[:2]
    codec = pa.Codec(CODEC, compression_level=1)
    packed = codec.compress(np.ascontiguousarray(pixels).reshape(-1), asbytes=True)
    return _Extract(name=name, height=height, width=width, pixels=packed, check=_check(name, height, width, packed))


def _check(name: str, height: int, width: int, packed: "bytes | pa.Buffer") -> int:
    return zlib.crc32(packed, zlib.crc32(f"{name} {height} {width}".encode()))


@cache
def _kind_of(settings: ImageSettings | None) -> str:
    """Name images that are fitted like this, or masks, which never are."""
    text = f"{VERSIONS['preparation']} {settings.model_dump_json() if settings is not None else 'masks'}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


class Writer:
    """Keeps extracts, from several threads. Where there is no room it stops quietly: nothing depends on them."""

    def __init__(self, place: Place, fits: Collection[ImageSettings]) -> None:
        self._place = place
        self._fits = tuple(fits)
        self._lock = Lock()
        self._waiting: dict[str, list[_Extract]] = defaultdict(list)
        self._bytes = 0
        self._room = 0
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            self._room = self._cleared()

    def _cleared(self) -> int:
        """Drop what was cut off, and all of it where it has become much; return the bytes that may be written."""
        used = 0
        for folder in self._place.folders():
            for file in folder.glob("*.tmp"):
                file.unlink(missing_ok=True)
            used += bytes_in(folder)
        if used > BUDGET_BYTES // 2:  # most of it of files that have changed since
            for folder in self._place.folders():
                shutil.rmtree(folder, ignore_errors=True)
            used = 0
        return min(BUDGET_BYTES - used, int(shutil.disk_usage(self._place.parent).free * DISK_SHARE))

    def mask(self, name: str, pixels: Pixels) -> None:
        """Leave (height, width) ids or 0/1 as they are."""
        if self._room > 0:
            self._add(_kind_of(None), _packed(name, pixels, pixels))

    def image(self, name: str, pixels: Pixels) -> None:
        """Leave (height, width[, 3]) fitted in each of the ways that were asked for."""
        for settings in self._fits:
            if self._room > 0:
                self._add(_kind_of(settings), _packed(name, pixels, fit_image(pixels, settings)))

    def _add(self, kind: str, extract: _Extract) -> None:
        with self._lock:
            self._room -= len(extract.pixels)
            self._bytes += len(extract.pixels)
            self._waiting[kind].append(extract)
            if self._bytes > BATCH_BYTES:
                self._write()

    def flush(self) -> None:
        """Write what was taken."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        for kind, extracts in self._waiting.items():
            try:
                _save(extracts, self._place.of(kind))
            except OSError:
                self._room = 0
        self._waiting.clear()
        self._bytes = 0


def _save(extracts: list[_Extract], folder: Path) -> None:
    import pyarrow as pa

    kinds = {"height": pa.int32(), "width": pa.int32(), "pixels": pa.binary(), "check": pa.uint32()}
    schema = pa.schema({"name": pa.string(), **kinds})
    columns = {name: [getattr(extract, name) for extract in extracts] for name in schema.names}
    with (
        written_aside(folder / f"{uuid.uuid4().hex}.arrow") as aside,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, schema) as file,
    ):
        file.write_table(pa.table(columns, schema=schema))


class Extracts:
    """The extracts at a place, mapped into memory where they are first asked for."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kinds: dict[str, _Kind] = {}
        self._lock = Lock()

    def mask(self, name: str) -> Pixels | None:
        """Return (height, width) ids or 0/1 of a file, None where it has to be decoded."""
        found = self._kind(_kind_of(None)).pixels(name)
        return None if found is None else found[0]

    def image(self, name: str, settings: ImageSettings) -> tuple[Pixels, tuple[int, int]] | None:
        """Return (size, size, channels) as fitted, and (height, width) before; None where it has to be decoded."""
        return self._kind(_kind_of(settings)).pixels(name, (settings.size, settings.size, settings.channels))

    def forget(self, settings: ImageSettings) -> None:
        """Remove images fitted like this."""
        kind = _kind_of(settings)
        with self._lock:
            self._kinds.pop(kind, None)
        shutil.rmtree(self._place.of(kind), ignore_errors=True)

    def _kind(self, kind: str) -> "_Kind":
        with self._lock:
            if kind not in self._kinds:
                self._kinds[kind] = _Kind(self._place.of(kind))
            return self._kinds[kind]


class _Kind:
    def __init__(self, folder: Path) -> None:
        with suppress(OSError):
            os.utime(folder)  # what is in use is not what the cache removes first
        self._places = {
            name: (batch, row)
            for place in folder.glob("*.arrow")
            for batch in _loaded(place)
            for row, name in enumerate(batch.column("name").to_pylist())
        }

    def pixels(self, name: str, shape: tuple[int, ...] | None = None) -> tuple[Pixels, tuple[int, int]] | None:
        """Return pixels of this shape, by default the file's, and (height, width) of the file."""
        import pyarrow as pa

        at = self._places.get(name)
        if at is None:
            return None
        batch, row = at
        height, width, check = (batch.column(name)[row].as_py() for name in ("height", "width", "check"))
        packed = batch.column("pixels")[row].as_buffer()
        if check != _check(name, height, width, packed):
            return None
        shape = shape or (height, width)
        pixels = np.frombuffer(pa.decompress(packed, math.prod(shape), CODEC), np.uint8).reshape(shape)
        return pixels, (height, width)


def _loaded(place: Path) -> "list[pa.RecordBatch]":
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(place))).read_all().to_batches()  # type: ignore[no-any-return]
    except (OSError, pa.ArrowException):  # removed meanwhile, cut off by a crash, of somebody else
        return []
