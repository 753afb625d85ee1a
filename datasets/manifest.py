"""What the files of a data set contain, read once and kept: a row a file in one Parquet table."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np

from datasets.arrays import PREPARED
from datasets.decode import SUFFIXES, Kind, examine, luma
from datasets.errors import DataError
from datasets.extracts import Place, Writer
from datasets.sample import Pixels, Progress
from datasets.settings import ImageSettings

VERSION = 2
"""Raised when decoding, hashes or columns change: older tables are then read no more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """Files under some folders of a root, as one walk found them. `folders` says what each one holds."""

    root: Path
    folders: Mapping[str, Kind]
    files: Mapping[str, tuple[int, int]]
    """(bytes, mtime in ns) by path relative to root, with forward slashes."""

    def inside(self, folder: str) -> list[str]:
        """Return the paths under one folder, relative to the root."""
        return [path for path in self.files if path.startswith(f"{folder}/")]

    def kind(self, path: str) -> Kind:
        """Return what the folder that a path lies in holds."""
        return next(kind for folder, kind in self.folders.items() if path.startswith(f"{folder}/"))

    def state(self, path: str) -> str:
        """Name a file as it was when it was listed."""
        size, mtime_ns = self.files[path]
        return f"{path} {size} {mtime_ns}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """One entry a file in every list, ordered by path (relative to the root)."""

    path: list[str]
    bytes: list[int]
    mtime_ns: list[int]
    content: list[str]
    """BLAKE2b-128 of the bytes, "" where the file cannot be read."""
    width: list[int]
    height: list[int]
    thumbnail: list[str]
    """256-bit difference hash of an image, "" for masks and faulty files."""
    values: list[str]
    """Grey values or ids that occur, as the bits of a hexadecimal number."""
    patient: list[str]
    """PatientID of a DICOM file, "" of others and where it is missing."""
    fault: list[str]

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where a path stands in the lists."""
        return {path: position for position, path in enumerate(self.path)}


CHUNK = 4096
NUMBERS = frozenset({"bytes", "mtime_ns", "width", "height"})
COLUMNS = tuple(column.name for column in fields(Manifest))
Row = tuple[str, int, int, str, int, int, str, str, str, str]


def scan(root: Path, folders: Mapping[str, Kind]) -> Listing:
    """List every image file under the folders; raises `DataError` where the root is no folder."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder; allowed: the folder of the data set; correct `root` or download it")
    files = dict(found for folder in folders for found in _walk(str(root), folder))
    return Listing(root=root, folders=folders, files=dict(sorted(files.items())))


def _walk(root: str, folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the files below a folder of the root."""
    try:
        entries = os.scandir(f"{root}/{folder}")
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir():
                yield from _walk(root, f"{folder}/{name}")
            elif name[0] != "." and name[name.rfind(".") :].lower() in SUFFIXES:
                stat = entry.stat()
                yield f"{folder}/{name}", (stat.st_size, stat.st_mtime_ns)


def file_state(path: Path) -> tuple[int, int] | None:
    """Return (bytes, mtime in ns) of a file as a listing holds them, None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def read_manifest(
    listing: Listing, cache: Path, progress: Progress | None = None, fits: Collection[ImageSettings] = ()
) -> Manifest:
    """Return what the listed files contain; only new or changed ones (bytes, mtime) are read.

    What is read leaves its masks, and its images fitted in each of these ways, in `extracts_of`.
    """
    table = cache / "manifests" / f"{_key(listing)}.parquet"
    known = _load(table)
    if _is_current(known, listing):
        return known
    from filelock import FileLock

    table.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(table.with_suffix(".lock")):
        known = _load(table)
        if _is_current(known, listing):
            return known
        writer = Writer(extracts_of(listing, cache), fits)
        for renewed in _renew(known, listing, progress, writer):
            _save(renewed, table)
            known = renewed
    return known


def thumbnail(pixels: Pixels) -> str:
    """Difference hash: 16 x 16 signs of horizontal steps of the 17 x 16 grey thumbnail, as 64 hex digits.

    "" where the thumbnail has one grey value: all such pictures would look the same.
    """
    import cv2

    small = cv2.resize(luma(pixels), (17, 16), interpolation=cv2.INTER_AREA)
    if small.min() == small.max():
        return ""
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def _key(listing: Listing) -> str:
    text = f"{VERSION} {listing.root.resolve()} {sorted(listing.folders.items())}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


def extracts_of(listing: Listing, cache: Path) -> Place:
    """Return where reading these files leaves what it decoded."""
    return Place(cache / PREPARED, _key(listing))


def _is_current(known: Manifest, listing: Listing) -> bool:
    return known.path == list(listing.files) and all(
        found == stored
        for found, stored in zip(listing.files.values(), zip(known.bytes, known.mtime_ns, strict=True), strict=True)
    )


def _renew(known: Manifest, listing: Listing, progress: Progress | None, writer: Writer) -> Iterator[Manifest]:
    """Yield growing manifests, so that an interrupted first reading is not lost; the last one is complete."""
    from concurrent.futures import ThreadPoolExecutor

    stored = zip(known.path, zip(*(getattr(known, name) for name in COLUMNS), strict=True), strict=True)
    rows: dict[str, Row] = {path: row for path, row in stored if listing.files.get(path) == (row[1], row[2])}
    missing = [path for path in listing.files if path not in rows]
    pool = ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1))
    try:
        for start in range(0, max(len(missing), 1), CHUNK):
            for row in pool.map(lambda path: _inspect(listing, path, writer), missing[start : start + CHUNK]):
                rows[row[0]] = row
                if progress is not None:
                    progress(len(rows) - len(listing.files) + len(missing), len(missing))
            writer.flush()
            yield _manifest([rows[path] for path in listing.files if path in rows])
    finally:
        pool.shutdown(cancel_futures=True)  # who interrupts does not wait for the files that are left


def _manifest(rows: list[Row]) -> Manifest:
    columns = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
    return Manifest(**{name: list(column) for name, column in zip(COLUMNS, columns, strict=True)})


def _inspect(listing: Listing, path: str, writer: Writer) -> Row:
    size, mtime = listing.files[path]
    kind = listing.kind(path)
    content = ""
    try:
        data = (listing.root / path).read_bytes()
        content = blake2b(data, digest_size=16).hexdigest()
        pixels, patient = examine(data, kind, path)
    except DataError as error:
        return path, size, mtime, content, 0, 0, "", "", "", str(error)
    except OSError as error:
        fault = f"{path} cannot be read ({error.strerror}); allowed: a readable file; restore it"
        return path, size, mtime, content, 0, 0, "", "", "", fault
    leave = writer.image if kind == "image" else writer.mask
    leave(listing.state(path), pixels)
    grey = luma(pixels)
    seen = thumbnail(grey) if kind == "image" else ""
    return path, size, mtime, content, grey.shape[1], grey.shape[0], seen, _values(grey), patient, ""


def _values(pixels: Pixels) -> str:
    import cv2

    occurring = cv2.calcHist([pixels], [0], None, [256], [0, 256]).ravel() > 0
    return f"{int.from_bytes(np.packbits(occurring, bitorder='little').tobytes(), 'little'):x}"


def _load(path: Path) -> Manifest:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:  # read_table would import pandas
            table = file.read()
    except (FileNotFoundError, pyarrow.ArrowInvalid):  # not there, or cut off by a crash: read anew
        return _manifest([])
    return Manifest(**{name: table.column(name).to_pylist() for name in COLUMNS})


def _save(manifest: Manifest, path: Path) -> None:
    import pyarrow.parquet

    aside = path.with_suffix(f".{os.getpid()}.tmp")
    kinds = {name: pyarrow.int64() if name in NUMBERS else pyarrow.string() for name in COLUMNS}
    table = pyarrow.table({name: pyarrow.array(getattr(manifest, name), kinds[name]) for name in COLUMNS})
    pyarrow.parquet.write_table(table, aside, compression="zstd")
    aside.replace(path)
