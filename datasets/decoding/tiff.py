"""Large TIFF files, of which tiles or strips are decoded one after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.decoding.bands import has_bands
from datasets.decoding.raster import NO_DATA, UnsuitableError, is_pyramid, lossy_mask, several_pages
from datasets.large import BAND_PIXELS, AnyArray, release, temporary_array
from datasets.source import Pixels

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

MAX_SEGMENT_BYTES: Final = 2**28
"""Maximum size of a decoded tile or strip."""
LOSSY: Final = frozenset({"JPEG", "OJPEG", "JPEGXR", "JPEGXR_NDPI", "WEBP", "JPEG_2000_LOSSY", "JPEG_LOSSY",
                          "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB"})  # fmt: skip
"""Compressions by the names of tifffile that may change values."""

_Segment = tuple[int, int]
"""Offset and length in the file, 0 where nothing is stored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TiffRows:
    """The rows of the first page of a TIFF file, with values of 8 or 16 bits.

    Attributes:
        shape: (height, width, samples).
        channels: Number of samples that are grey, colours or bands; alpha and further ones follow.
        colours: Whether these are colours, with a common range.
        segment_shape: Height and width of a tile or strip.
        lossy: Whether the compression may change values.
        orientation: EXIF orientation, 1 if not rotated.
    """

    path: Path
    shape: tuple[int, int, int]
    channels: int
    colours: bool
    dtype: np.dtype[Any]
    segment_shape: tuple[int, int]
    segments: tuple[_Segment, ...]
    decode: Callable[..., Any]
    """Decodes the bytes of a segment, as `tifffile.TiffPage.decode`."""
    tables: bytes | None
    """Tables that the JPEG segments share."""
    lossy: bool
    orientation: int

    def read(self, start: int, stop: int) -> AnyArray:
        """Return rows (stop - start, width, samples). Raises the errors of tifffile for damaged files."""
        tall, wide = self.segment_shape
        rows = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        columns = -(-self.shape[1] // wide)
        with self.path.open("rb") as file:
            for line in range(start // tall, -(-stop // tall)):
                first, last = max(start, line * tall), min(stop, (line + 1) * tall)
                inner = slice(first - line * tall, last - line * tall)
                for column in range(columns):
                    segment = self._segment(file, line * columns + column)
                    if segment is not None:
                        left = column * wide
                        part = segment[inner, : self.shape[1] - left]
                        rows[first - start : last - start, left : left + part.shape[1]] = part
        return rows

    def _segment(self, file: BinaryIO, number: int) -> AnyArray | None:
        """Return (height, width, samples) of a tile or strip, None if the file leaves it out."""
        offset, length = self.segments[number]
        if not length:
            return None
        file.seek(offset)
        data = file.read(length)
        if len(data) < length:
            raise ValueError(f"tile or strip {number} is cut off")
        segment, _, _ = self.decode(data, number, jpegtables=self.tables)
        return None if segment is None else np.asarray(segment[0])


def read_tiff(path: Path, kind: Literal["image", "ids", "foreground"]) -> tuple[Pixels, int] | None:
    """Decode a large TIFF file part by part: its pixels, as `datasets.decoding.decode` defines them, and orientation.

    Returns None if its layout can only be decoded as a whole. Raises `UnsuitableError`, and errors of tifffile for
    damaged files.
    """
    rows = _open(path)
    if rows is None or (kind != "image" and rows.shape[2] > 1):
        return None
    if kind != "image" and rows.lossy:
        raise lossy_mask()
    convert = _CONVERSIONS[kind](rows)
    height, width, _ = rows.shape
    channels = (rows.channels,) if kind == "image" and rows.channels > 1 else ()
    pixels = temporary_array((height, width, *channels))
    for start, stop in _bands(rows):
        values = rows.read(start, stop)
        pixels[start:stop] = convert(values[..., : rows.channels] if channels else values[..., 0])
        release(pixels)
    return pixels, rows.orientation


def _bands(rows: TiffRows) -> list[tuple[int, int]]:
    height, width = rows.shape[:2]
    step = rows.segment_shape[0]
    count = max(1, BAND_PIXELS // width // step) * step
    return [(start, min(start + count, height)) for start in range(0, height, count)]


def _image(rows: TiffRows) -> Callable[[AnyArray], Pixels]:
    if rows.dtype == np.uint8:
        return lambda values: values
    parts = (rows.read(*band)[..., : rows.channels].reshape(-1, rows.channels) for band in _bands(rows))
    ranges = np.array([(part.min(axis=0), part.max(axis=0)) for part in parts], np.float64)
    lows, highs = ranges[:, 0].min(axis=0), ranges[:, 1].max(axis=0)
    if rows.colours:
        lows[:], highs[:] = lows.min(), highs.max()
    values = np.arange(2**16, dtype=np.float64)
    tables = [
        np.rint((values - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)
        for low, high in zip(lows, highs, strict=True)
    ]
    if len(tables) == 1 or rows.colours:
        return lambda values: tables[0][values]
    return lambda values: np.stack([table[values[..., number]] for number, table in enumerate(tables)], axis=2)


def _ids(rows: TiffRows) -> Callable[[AnyArray], Pixels]:
    def convert(values: AnyArray) -> Pixels:
        if values.max(initial=0) > 255:
            raise UnsuitableError(
                f"holds the id {values.max()}; allowed: 0 to 255; numbers of objects are no classes: write the class "
                "of each pixel"
            )
        return values.astype(np.uint8)

    return convert


_CONVERSIONS: Final[dict[str, Callable[[TiffRows], Callable[[AnyArray], Pixels]]]] = {
    "image": _image,
    "ids": _ids,
    "foreground": lambda _: lambda values: (values > 0).astype(np.uint8),
}


def _open(path: Path) -> TiffRows | None:
    """Read the header; None for layouts that are not decoded by parts."""
    from tifffile import TiffFile

    with TiffFile(path) as file:
        _check_pages(file)
        page = file.pages.first
        if not _is_readable(page):
            return None
        segments = tuple(zip(page.dataoffsets, page.databytecounts, strict=True))
        shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
        tall, wide = page.chunks[:2]
        return _stored_rows(TiffRows(
            path=path, shape=shape, channels=_channels(page), colours=_has_colours(page), dtype=np.dtype(page.dtype),
            segment_shape=(tall, wide), segments=segments,
            decode=page.decode, tables=page.jpegtables, lossy=_compression(page) in LOSSY,
            orientation=_tag(page, "Orientation", 1),
        ), page)  # fmt: skip


def _stored_rows(rows: TiffRows, page: "TiffPage") -> TiffRows | None:
    """Divide strips of uncompressed rows into single rows, as there may be only one strip; None for large segments."""
    tall, wide = rows.segment_shape
    row_bytes = wide * rows.shape[2] * rows.dtype.itemsize
    if page.is_tiled or _compression(page) != "NONE" or page.predictor != 1 or page.fillorder != 1:
        return rows if tall * row_bytes <= MAX_SEGMENT_BYTES else None
    height = rows.shape[0]
    by_row = tuple(
        (rows.segments[row // tall][0] + row % tall * row_bytes, row_bytes if rows.segments[row // tall][1] else 0)
        for row in range(height)
    )
    stored = rows.dtype.newbyteorder(page.parent.byteorder)
    line_shape = (1, 1, wide, rows.shape[2])

    def decode(data: bytes, number: int, jpegtables: bytes | None = None) -> tuple[NDArray[Any], None, None]:
        return np.frombuffer(data, stored).reshape(line_shape), None, None

    return TiffRows(
        path=rows.path, shape=rows.shape, channels=rows.channels, colours=rows.colours, dtype=rows.dtype,
        segment_shape=(1, wide), segments=by_row, decode=decode,
        tables=None, lossy=False, orientation=rows.orientation,
    )  # fmt: skip


def _is_readable(page: "TiffPage") -> bool:
    """Return whether the pixels are unsigned grey or RGB values of 8 or 16 bits, without a colour map or nodata."""
    from tifffile import PHOTOMETRIC

    photometric = PHOTOMETRIC(page.photometric)
    return (
        photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
        and (photometric != PHOTOMETRIC.YCBCR or _compression(page) == "JPEG")
        and page.dtype in (np.uint8, np.uint16)
        and page.bitspersample in (8, 16)
        and (page.samplesperpixel in (1, 2, 3, 4) or has_bands(page))
        and (page.planarconfig == 1 or page.samplesperpixel == 1)
        and page.imagedepth == 1
        and (NO_DATA not in page.tags or page.dtype == np.uint8)
    )


def _has_colours(page: "TiffPage") -> bool:
    return page.photometric in (2, 6)  # RGB, YCbCr


def _channels(page: "TiffPage") -> int:
    """Return the number of samples that are grey, colours or bands."""
    if has_bands(page):
        return int(page.samplesperpixel)
    return 3 if page.samplesperpixel > 2 else 1


def _check_pages(file: "TiffFile") -> None:
    """Raise `UnsuitableError` for several pages that are not smaller copies."""
    pages = [page.aspage() for page in file.pages]
    shapes = [(page.imagelength, page.imagewidth) for page in pages if not page.is_reduced]
    if len(shapes) > 1 and not is_pyramid(shapes, tiled=pages[0].is_tiled):
        raise several_pages(len(shapes))


def _compression(page: "TiffPage") -> str:
    from tifffile import COMPRESSION

    return COMPRESSION(page.compression).name


def _tag(page: "TiffPage", name: str, default: int) -> int:
    tag = page.tags.get(name)
    return default if tag is None else int(tag.value)
