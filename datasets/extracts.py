"""What reading files leaves for preparing, so that none is decoded twice: masks, and images as they will be fitted.

Each kind of extract has a folder of Arrow files, whose pixels are compressed by zstd. All of it may be removed at any
time: what is not there is decoded again.
"""

import shutil
import uuid
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np

from datasets.sample import Pixels
from datasets.settings import ImageSettings
from datasets.targets import fit_image
from datasets.versions import VERSIONS

if TYPE_CHECKING:
    import pyarrow as pa

MASKS: Final = "masks"
CODEC: Final = "zstd"
BATCH_BYTES: Final = 2**24
"""Of a file."""
BUDGET_BYTES: Final = 2**34
"""Of one data set; what is beyond it is decoded again."""
DISK_SHARE: Final = 1 / 8
"""Of what is free, that a reading takes at most: the arrays that are prepared then need room too."""


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Compressed pixels of a file of this height and width. `name` says which file, and as it was when."""

    kind: str
    name: str
    height: int
    width: int
    pixels: bytes


def mask_extract(name: str, pixels: Pixels) -> Extract:
    """Extract (height, width) ids or 0/1 as they are."""
    return _extract(MASKS, name, pixels, pixels)


def image_extract(name: str, pixels: Pixels, settings: ImageSettings) -> Extract:
    """Extract (height, width[, 3]) as it will be fitted."""
    return _extract(_kind_of(settings), name, pixels, fit_image(pixels, settings))


def _extract(kind: str, name: str, original: Pixels, pixels: Pixels) -> Extract:
    import pyarrow as pa

    codec = pa.Codec(CODEC, compression_level=1)
    packed = codec.compress(np.ascontiguousarray(pixels).reshape(-1), asbytes=True)
    return Extract(kind=kind, name=name, height=original.shape[0], width=original.shape[1], pixels=packed)


def _kind_of(settings: ImageSettings) -> str:
    text = f"{VERSIONS['preparation']} {settings.model_dump_json()}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


class Writer:
    """Keeps extracts in a folder. Where the disk takes no more it stops quietly: nothing depends on them."""

    def __init__(self, folder: Path, fits: Collection[ImageSettings]) -> None:
        self.fits = fits
        self._folder = folder
        wanted = {MASKS, *map(_kind_of, fits)}
        for kind in folder.glob("*"):
            if kind.name not in wanted:  # of studies that were planned and never run
                shutil.rmtree(kind, ignore_errors=True)
        self._room = min(BUDGET_BYTES - _size_of(folder), int(_free(folder) * DISK_SHARE))
        self._waiting: dict[str, list[Extract]] = defaultdict(list)
        self._bytes = 0

    def add(self, extract: Extract) -> None:
        """Take one; it may be written later."""
        size = len(extract.pixels)
        if size > self._room:
            return
        self._room -= size
        self._bytes += size
        self._waiting[extract.kind].append(extract)
        if self._bytes > BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was taken."""
        waiting, self._waiting, self._bytes = self._waiting, defaultdict(list), 0
        for kind, extracts in waiting.items():
            try:
                _save(extracts, self._folder / kind)
            except OSError:
                self._room = 0


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*/*.arrow"))


def _free(folder: Path) -> int:
    there = next(above for above in (folder, *folder.parents) if above.is_dir())
    return shutil.disk_usage(there).free


def _save(extracts: list[Extract], folder: Path) -> None:
    import pyarrow as pa

    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{uuid.uuid4().hex}.arrow"
    aside = place.with_suffix(".tmp")
    schema = pa.schema({"name": pa.string(), "height": pa.int32(), "width": pa.int32(), "pixels": pa.binary()})
    columns = {name: [getattr(extract, name) for extract in extracts] for name in schema.names}
    try:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
            file.write_table(pa.table(columns, schema=schema))
        aside.replace(place)
    finally:
        aside.unlink(missing_ok=True)


class Extracts:
    """The extracts in a folder, mapped into memory where they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kinds: dict[str, _Kind] = {}
        self._lock = Lock()

    def mask(self, name: str) -> Pixels | None:
        """Return (height, width) ids or 0/1 of a file, None where it has to be decoded."""
        found = self._kind(MASKS).row(name)
        return None if found is None else found.pixels((found.height, found.width))

    def image(self, name: str, settings: ImageSettings) -> tuple[Pixels, tuple[int, int]] | None:
        """Return (size, size, channels) as fitted, and (height, width) before; None where it has to be decoded."""
        found = self._kind(_kind_of(settings)).row(name)
        if found is None:
            return None
        return found.pixels((settings.size, settings.size, settings.channels)), (found.height, found.width)

    def forget(self, settings: ImageSettings) -> None:
        """Remove images fitted like this."""
        kind = _kind_of(settings)
        with self._lock:
            self._kinds.pop(kind, None)
        shutil.rmtree(self._folder / kind, ignore_errors=True)

    def _kind(self, kind: str) -> "_Kind":
        with self._lock:
            if kind not in self._kinds:
                self._kinds[kind] = _Kind(self._folder / kind)
            return self._kinds[kind]


@dataclass(frozen=True)
class _Row:
    height: int
    width: int
    packed: "pa.Buffer"

    def pixels(self, shape: tuple[int, ...]) -> Pixels:
        import pyarrow as pa

        return np.frombuffer(pa.decompress(self.packed, int(np.prod(shape)), CODEC), np.uint8).reshape(shape)


class _Kind:
    def __init__(self, folder: Path) -> None:
        self._batches = [batch for place in folder.glob("*.arrow") for batch in _loaded(place)]
        self._places = {
            name: (batch, row) for batch in self._batches for row, name in enumerate(batch.column("name").to_pylist())
        }

    def row(self, name: str) -> _Row | None:
        at = self._places.get(name)
        if at is None:
            return None
        batch, row = at
        height, width = (batch.column(side)[row].as_py() for side in ("height", "width"))
        return _Row(height, width, batch.column("pixels")[row].as_buffer())


def _loaded(place: Path) -> "list[pa.RecordBatch]":
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(place))).read_all().to_batches()  # type: ignore[no-any-return]
    except (FileNotFoundError, pa.ArrowInvalid):  # removed meanwhile, or cut off by a crash
        return []
