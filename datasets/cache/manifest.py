"""The manifest of a data set: content hash, size and values of each file, cached in a Parquet table."""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, reduce
from hashlib import blake2b
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np

from datasets.cache.arrays import PREPARED
from datasets.cache.atomic_files import read_hashed, write_hashed
from datasets.cache.extracts import ExtractFolders, ExtractWriter
from datasets.decoding.decode import (
    SUFFIXES,
    VOLUME_SUFFIXES,
    Kind,
    channels_of,
    content_hash,
    examine,
    examine_large,
    is_large_file,
    luma,
    suffix_of,
)
from datasets.decoding.mask_coding import MaskCoding
from datasets.decoding.volume import LAST_AXIS, Geometry
from datasets.errors import DataError
from datasets.large import release, row_bands
from datasets.resampling import resized
from datasets.settings import FileChannels, ImageSettings, VolumeSettings
from datasets.source import Pixels, ProgressCallback

VERSION = 7
"""Increased when decoding, hashes or columns change; older tables are then ignored."""

FileState = tuple[int, int, int, int]
"""Size in bytes, mtime in ns, ctime in ns and inode: replacing a file changes one of them even if mtime is kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The files below some folders of a root. `folders` maps each folder, or pattern, to the kind of its files."""

    root: Path
    folders: Mapping[str, Kind]
    files: Mapping[str, FileState]
    """By path relative to root, with forward slashes."""
    unread: Sequence[str] = ()
    """Paths of files without an image suffix."""
    volumes: VolumeSettings | None = None
    """How volumes are sliced; None if the layout has none, and files of several pages are faulty."""
    channels: FileChannels | None = None
    """Channels along the fourth axis of volumes; None if images have three dimensions."""
    coding: MaskCoding | None = None
    """The meaning of the values of masks; None if they are class ids."""
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """Kinds of files by path, if `folders` has patterns."""
    is_excerpt: bool = False
    """Whether only a part of the files is listed."""

    def excerpt(self, paths: Collection[str]) -> "Listing":
        """Return the listing of some of the files."""
        kept = set(paths)
        return replace(self, files={path: state for path, state in self.files.items() if path in kept}, is_excerpt=True)

    def inside(self, folder: str) -> list[str]:
        """Return the paths under one folder, relative to the root."""
        return [path for path in self.files if path.startswith(f"{folder}/")]

    def kind(self, path: str) -> Kind:
        """Return the kind of a file, given by its folder or pattern."""
        if path in self.kinds:
            return self.kinds[path]
        return next(kind for folder, kind in self.folders.items() if path.startswith(f"{folder}/"))

    def state(self, path: str, number: int | None = None) -> str:
        """Return path and state of a file as one string, with the number of a slice."""
        part = "" if number is None else f" {number}"
        return f"{path} {' '.join(map(str, self.files[path]))}{part}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """Lists with one entry per file, ordered by path (relative to the root)."""

    path: list[str]
    bytes: list[int]
    mtime_ns: list[int]
    ctime_ns: list[int]
    inode: list[int]
    content: list[str]
    """BLAKE2b-128 of the bytes, "" if the file cannot be read."""
    width: list[int]
    height: list[int]
    channels: list[int]
    """Number of channels of an image, 1 for masks; 0 if the file cannot be decoded."""
    slices: list[int]
    """Number of slices of a volume, which have the same width and height; 0 for single images."""
    axis: list[int]
    """The axis that slices are perpendicular to; see `datasets.decoding.volume`."""
    spacing: list[str]
    """`Geometry.spacing`, `Geometry.affine` and `Geometry.frame_order` as numbers separated by spaces."""
    affine: list[str]
    frame_order: list[str]
    thumbnail: list[str]
    """256-bit difference hash of an image, of the middle slice of a volume; "" for masks and faulty files."""
    values: list[str]
    """Grey values or ids that occur, as bits of a hexadecimal number."""
    slice_values: list[str]
    """The same of each slice of a volume, separated by spaces; "" for single images."""
    patient: list[str]
    """PatientID of a DICOM file, "" for other files and if it is missing."""
    remark: list[str]
    """A warning about a readable file, "" without one."""
    fault: list[str]

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each path in the lists."""
        return {path: position for position, path in enumerate(self.path)}

    def geometry(self, position: int) -> Geometry:
        """Return the position of a file in space."""
        spacing, affine = (tuple(map(float, column[position].split())) for column in (self.spacing, self.affine))
        return Geometry(
            slices=self.slices[position], axis=self.axis[position], spacing=spacing, affine=affine,
            frame_order=tuple(map(int, self.frame_order[position].split())),
        )  # fmt: skip


CHUNK = 4096
STATE = ("bytes", "mtime_ns", "ctime_ns", "inode")
NUMBERS = frozenset({*STATE, "width", "height", "channels", "slices", "axis"})
COLUMNS = tuple(column.name for column in fields(Manifest))


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One file; the fields are those of `Manifest`."""

    path: str
    bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    content: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    slices: int = 0
    axis: int = LAST_AXIS
    spacing: str = ""
    affine: str = ""
    frame_order: str = ""
    thumbnail: str = ""
    values: str = ""
    slice_values: str = ""
    patient: str = ""
    remark: str = ""
    fault: str = ""


def scan(root: Path, folders: Mapping[str, Kind], volumes: VolumeSettings | None = None) -> Listing:
    """List all image files below the folders, and all volumes if there are settings for them.

    Raises `DataError` if the root is not a folder, and for entries that are not regular files or not named in UTF-8.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; allowed: the folder of the data set; correct `root` or download it")
    entries = [file for folder in folders for file in walk(root, folder)]
    suffixes = SUFFIXES if volumes is None else SUFFIXES | VOLUME_SUFFIXES
    files = {path: state for path, state in entries if suffix_of(path) in suffixes}
    unread = sorted(path for path, _ in entries if path not in files)
    return Listing(root=root, folders=folders, files=dict(sorted(files.items())), unread=unread, volumes=volumes)


Wanted = Callable[[str, bool], bool]
"""Function of a path and whether it is a folder."""


def walk(root: Path, folder: str = "", wanted: Wanted | None = None) -> Iterator[tuple[str, FileState]]:
    """Yield path and state of the files below a folder of the root, all visible ones or those that are `wanted`."""
    yield from _walk(str(root), folder, (), wanted)


def _walk(
    root: str, folder: str, ancestors: tuple[tuple[int, int], ...], wanted: Wanted | None
) -> Iterator[tuple[str, FileState]]:
    """Yield the files below a folder of the root; `ancestors` are device and inode of its parent folders."""
    try:
        entries = os.scandir(f"{root}/{folder}")
    except OSError as error:
        if not os.path.lexists(f"{root}/{folder}"):
            return
        raise DataError(f"{root}/{folder} cannot be read ({error.strerror}); allowed: a folder; restore it") from error
    with entries:
        for entry in entries:
            name, path = entry.name, f"{folder}/{entry.name}" if folder else entry.name
            if name[0] == "." or (wanted is not None and not wanted(path, entry.is_dir())):
                continue
            _check_name(root, path)
            status = _status(entry, f"{root}/{path}")
            if stat.S_ISDIR(status.st_mode):
                identity = status.st_dev, status.st_ino
                if identity in ancestors:
                    raise DataError(f"{root}/{path} is a link to one of its parent folders; allowed: files; remove it")
                yield from _walk(root, path, (*ancestors, identity), wanted)
            elif stat.S_ISREG(status.st_mode):
                yield path, _state(status)
            else:
                raise DataError(f"{root}/{path} is no regular file; allowed: files and folders; remove it")


def _check_name(root: str, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        escaped = os.fsencode(path).decode(errors="backslashreplace")
        raise DataError(f"{root}/{escaped} has a name that is not UTF-8; allowed: UTF-8 names; rename it") from None


def _status(entry: "os.DirEntry[str]", path: str) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:  # a dangling or circular link
        raise DataError(f"{path} cannot be read ({error.strerror}); allowed: files; restore or remove it") from error


def _state(status: os.stat_result) -> FileState:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def file_state(path: Path | str) -> FileState | None:
    """Return the state of a file, None if it does not exist."""
    try:
        return _state(os.stat(path))  # noqa: PTH116  (half the time of Path.stat, of many files)
    except OSError:
        return None


def read_manifest(
    listing: Listing, cache: Path, progress: ProgressCallback | None = None, fits: Collection[ImageSettings] = ()
) -> Manifest:
    """Return the manifest of the listed files, reading only new or changed ones.

    Masks, and images resized according to `fits`, are stored in `extracts_of` while they are decoded.
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
        writer = ExtractWriter(extracts_of(listing, cache), fits)
        for updated in _updated_manifests(known, listing, progress, writer):
            _save(updated, table)
            known = updated
    return known


def thumbnail(pixels: Pixels) -> str:
    """Difference hash: 16 x 16 signs of horizontal steps of the 17 x 16 grey thumbnail, as 64 hex digits.

    "" if the thumbnail is constant: the hashes of all such images are equal.
    """
    small = resized(luma(pixels), 16, 17, shrinks=True)
    if small.min() == small.max():
        return ""
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def _key(listing: Listing) -> str:
    volumes = listing.volumes
    sliced = "" if volumes is None else f" {volumes.axis} {volumes.window}"
    channels = "" if listing.channels is None else f" {listing.channels}"
    coding = "" if listing.coding is None else f" {listing.coding}"
    excerpt = " excerpt" if listing.is_excerpt else ""
    folders = sorted(listing.folders.items())
    text = f"{VERSION} {listing.root.resolve()} {folders}{sliced}{channels}{coding}{excerpt}"
    return blake2b(os.fsencode(text), digest_size=16).hexdigest()


def extracts_of(listing: Listing, cache: Path) -> ExtractFolders:
    """Return the folders with the decoded extracts of these files."""
    return ExtractFolders(cache / PREPARED, _key(listing))


def _is_current(known: Manifest, listing: Listing) -> bool:
    states = zip(*(getattr(known, name) for name in STATE), strict=True)
    return known.path == list(listing.files) and list(listing.files.values()) == list(states)


def _updated_manifests(
    known: Manifest, listing: Listing, progress: ProgressCallback | None, writer: ExtractWriter
) -> Iterator[Manifest]:
    """Yield growing manifests, so that an interrupted first pass is not lost; the last one is complete."""
    from concurrent.futures import ThreadPoolExecutor

    columns = (getattr(known, name) for name in COLUMNS)
    stored = (FileRow(**dict(zip(COLUMNS, values, strict=True))) for values in zip(*columns, strict=True))
    known_rows = {row.path: row for row in stored}
    rows = {path: row for path, row in known_rows.items() if listing.files.get(path) == _state_of(row)}
    missing = [path for path in listing.files if path not in rows]
    pool = ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1))
    try:
        for start in range(0, max(len(missing), 1), CHUNK):
            for row in pool.map(
                lambda path: _inspect(listing, path, writer, known_rows.get(path)), missing[start : start + CHUNK]
            ):
                rows[row.path] = row
                if progress is not None:
                    progress(len(rows) - len(listing.files) + len(missing), len(missing))
            writer.flush()
            yield _manifest([rows[path] for path in listing.files if path in rows])
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the remaining files


def _state_of(row: FileRow) -> FileState:
    return row.bytes, row.mtime_ns, row.ctime_ns, row.inode


def _manifest(rows: list[FileRow]) -> Manifest:
    return Manifest(**{name: [getattr(row, name) for row in rows] for name in COLUMNS})


def _inspect(listing: Listing, path: str, writer: ExtractWriter, previous: FileRow | None) -> FileRow:
    """Read a file; skip decoding if its content equals `previous` (it was moved, linked, or changed its mode)."""
    kind = listing.kind(path)
    state: dict[str, Any] = dict(zip(STATE, listing.files[path], strict=True))
    row = FileRow(path=path, **state)
    file = listing.root / path
    try:
        data = None if is_large_file(file) else file.read_bytes()
        content = blake2b(data, digest_size=16).hexdigest() if data is not None else content_hash(file)
    except OSError as error:
        return replace(row, fault=f"{path} cannot be read ({error.strerror}); allowed: a readable file; restore it")
    row = replace(row, content=content)
    if previous is not None and previous.content == row.content:
        return replace(previous, **state)
    try:
        decoded = (
            examine(data, kind, path, listing.volumes, listing.channels, listing.coding)
            if data is not None
            else examine_large(file, kind, path, listing.coding)
        )
    except DataError as error:
        return replace(row, fault=str(error))
    except OSError as error:  # no fault of the file, which would be stored
        raise DataError(
            f"{path} cannot be decoded ({error.strerror}); allowed: room for temporary files below TMPDIR; free some"
        ) from error
    geometry = decoded.geometry
    planes = decoded.pixels if geometry.slices else decoded.pixels[None]
    keep_pixels = writer.image if kind == "image" else writer.mask
    values, thumbnails = [], []
    for number, plane in enumerate(planes):
        if data is not None:  # extracts are read and written as a whole
            keep_pixels(listing.state(path, number if geometry.slices else None), plane)
        grey = luma(plane)
        values.append(_values(grey))
        if kind == "image" and number == len(planes) // 2:
            thumbnails.append(thumbnail(grey))
    return replace(
        row, width=planes.shape[2], height=planes.shape[1], channels=channels_of(planes[0]),
        slices=geometry.slices, axis=geometry.axis, spacing=" ".join(map(repr, geometry.spacing)),
        affine=" ".join(map(repr, geometry.affine)), frame_order=" ".join(map(str, geometry.frame_order)),
        thumbnail="".join(thumbnails),
        values=f"{reduce(or_, values):x}",
        slice_values=" ".join(f"{bits:x}" for bits in values) if geometry.slices else "",
        patient=decoded.patient, remark=decoded.remark,
    )  # fmt: skip


def _values(pixels: Pixels) -> int:
    """Return the values that occur as bits."""
    import cv2

    occurring = np.zeros(256, np.bool_)
    for rows in row_bands(*pixels.shape):
        occurring |= cv2.calcHist([np.asarray(pixels[rows])], [0], None, [256], [0, 256]).ravel() > 0
        release(pixels)
    return int.from_bytes(np.packbits(occurring, bitorder="little").tobytes(), "little")


def _load(path: Path) -> Manifest:
    import pyarrow.parquet

    data = read_hashed(path)
    if data is None:  # missing or damaged: all files are read again
        return _manifest([])
    with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)) as file:  # read_table would import pandas
        table = file.read()
    return Manifest(**{name: table.column(name).to_pylist() for name in COLUMNS})


def _save(manifest: Manifest, path: Path) -> None:
    import pyarrow.parquet

    kinds = {name: pyarrow.int64() if name in NUMBERS else pyarrow.string() for name in COLUMNS}
    kinds["inode"] = pyarrow.uint64()  # some file systems use all 64 bits
    table = pyarrow.table({name: pyarrow.array(getattr(manifest, name), kinds[name]) for name in COLUMNS})
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    write_hashed(path, buffer.getvalue().to_pybytes())
