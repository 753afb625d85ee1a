"""Image files with their pixels as stored, where PIL would truncate, rotate or convert them."""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from datasets.source import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

StoredValues = NDArray[Any]

ORIENTATION, PHOTOMETRIC, SAMPLE_FORMAT, COLOUR_MAP, SUBFILE, NO_DATA = 274, 262, 339, 320, 254, 42113
BITS_PER_SAMPLE, PLANAR_CONFIGURATION, TILE_WIDTH, EXTRA_SAMPLES = 258, 284, 322, 338
IMAGE_DESCRIPTION = 270
"""TIFF tags (TIFF 6.0; `NO_DATA` is GDAL's)."""
TIFF_BYTE_ORDERS: Final = (b"II", b"MM")
LOSSY_FORMATS: Final = frozenset({"JPEG", "MPO", "JPEG2000", "AVIF"})
LOSSY_COMPRESSIONS: Final = frozenset({"jpeg", "tiff_jpeg", "webp"})
"""TIFF compressions by the names of PIL."""
MAX_PIXELS: Final = 178_956_970
"""Maximum number of pixels of an image that is decoded as a whole, which is the limit of PIL."""
MAX_BYTES: Final = 2**29
"""The same for images with more pixels, by the bytes that they take in memory: grey images of 8 bits may be larger."""
GREY_STEPS: Final = {"L;2": 85, "L;4": 17}
"""Factors by which PIL multiplies grey values of 2 and 4 bits."""
_UNDO_ORIENTATION: Final[Mapping[int, tuple[str, Callable[[StoredValues], StoredValues]]]] = {
    2: ("FLIP_LEFT_RIGHT", lambda values: values[:, ::-1]),
    3: ("ROTATE_180", lambda values: values[::-1, ::-1]),
    4: ("FLIP_TOP_BOTTOM", lambda values: values[::-1]),
    5: ("TRANSPOSE", lambda values: values.swapaxes(0, 1)),
    6: ("ROTATE_90", np.rot90),
    7: ("TRANSVERSE", lambda values: values[::-1, ::-1].swapaxes(0, 1)),
    8: ("ROTATE_270", lambda values: np.rot90(values, 3)),
}
"""The inverse of each EXIF orientation: the transpose method of PIL, and a function of arrays."""


class UnsuitableError(ValueError):
    """Raised for an intact file with unsuitable content; messages as for `DataError`, without the file name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Raster:
    """A decoded file. `image` is loaded; `raw_mode` is the pixel format in the file, as named by PIL."""

    data: bytes
    image: "Image"
    raw_mode: str
    orientation: int
    """EXIF orientation, 1 if not rotated."""
    tags: dict[int, Any]
    """Tags of a TIFF file, empty for other formats."""

    @property
    def white_is_zero(self) -> bool:
        """Whether 0 is white according to the TIFF header."""
        return self.tags.get(PHOTOMETRIC) == 0

    @property
    def further_samples(self) -> int:
        """Return the number of samples of a pixel beside colours and alpha."""
        return sum(extra == 0 for extra in self.tags.get(EXTRA_SAMPLES, ()))

    @cached_property
    def no_data(self) -> float:
        """Return the nodata value of GDAL, NaN if not set."""
        return parse_no_data(self.tags.get(NO_DATA, "nan"))

    @property
    def lossy(self) -> bool:
        """Whether the compression is lossy: JPEG, also in TIFF, and WebP unless lossless."""
        if self.image.format == "WEBP":
            return b"VP8L" not in riff_chunks(self.data)
        return self.image.format in LOSSY_FORMATS or self.image.info.get("compression") in LOSSY_COMPRESSIONS

    @cached_property
    def colour(self) -> StoredValues:
        """Return (height, width) grey or (height, width, 3) RGB without alpha, palettes expanded, in full bit depth."""
        if self.is_palette:
            return np.asarray(self._palette()[self._indices()])
        if self.image.mode in {"1", "L", "LA", "La"} and not self.is_truncated and not self._is_signed:
            return np.asarray(self.image if self.image.mode == "L" else self.image.convert("L"))
        if self.image.mode in {"CMYK", "YCbCr", "LAB", "HSV"}:
            return np.asarray(self.image.convert("RGB"))
        return self._without_alpha(self._stored())

    def numbers(self) -> StoredValues:
        """Return the stored values without alpha, (height, width[, 3]).

        For a palette of greys these are the greys, because tools differ in the order of the palette and optimisers
        change it. For a palette of colours these are the indices. Raises `UnsuitableError` if an index other than 0 is
        black, and for colours in a GIF, whose encoders reorder the palette.
        """
        if self.is_palette:
            return self._ids()
        values = self._without_alpha(self._stored())
        step = GREY_STEPS.get(self.raw_mode)
        return values if step is None else values // step

    def alpha_shape(self) -> Pixels | None:
        """Return the mask of pixels with alpha above 0, for images of one colour with transparent pixels.

        Such masks are written by brush tools. None for other images.
        """
        alpha = self._alpha()
        if alpha is None or (alpha > 0).all():
            return None
        colour = self.colour
        return None if (colour != colour[:1, :1]).any() else np.asarray(alpha > 0, np.uint8)

    @property
    def hides_colour(self) -> bool:
        """Whether transparent pixels have a colour other than black, so that the foreground is ambiguous."""
        alpha = self._alpha()
        return alpha is not None and bool(alpha.any()) and bool(self.colour[alpha == 0].any())

    def _alpha(self) -> StoredValues | None:
        """Return alpha as (height, width), None without an alpha channel."""
        if self.image.getbands()[-1] == "A":
            return self._stored()[..., -1]
        if "transparency" in self.image.info:
            return np.asarray(self.image.convert("RGBA"))[..., 3]
        return None

    @property
    def is_palette(self) -> bool:
        """Whether pixels are indices into a colour palette."""
        return self.image.mode in {"P", "PA"}

    @property
    def is_truncated(self) -> bool:
        """Whether PIL keeps only the upper 8 of 16 bits per channel."""
        return ";16" in self.raw_mode and not self.image.mode.startswith("I")

    @property
    def _is_signed(self) -> bool:
        return self.image.mode == "L" and self.tags.get(SAMPLE_FORMAT, (1,))[0] == 2

    def _stored(self) -> StoredValues:
        if self.is_truncated:
            return _decode_16_bits(self.data, self.image, self.orientation)
        values = np.asarray(self.image)
        if self._is_signed:
            values = (255 - values if self.white_is_zero else values).view(
                np.int8
            )  # PIL inverts images in which 0 is white
        elif self.image.mode == "I" and self.raw_mode.startswith("I;32") and "S" not in self.raw_mode:
            values = values.view(np.uint32)
        return values

    def _without_alpha(self, values: StoredValues) -> StoredValues:
        if values.ndim == 2:
            return values
        return values[..., 0] if values.shape[2] == 2 else values[..., :3]

    def _palette(self) -> Pixels:
        """Return the colours of the palette, (256, 3), padded with black."""
        colours = self.tags.get(COLOUR_MAP)
        if colours is None:
            colours_8_bit = np.array(self.image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        else:
            values = np.array(colours).reshape(3, -1).T
            # Some programs write 8-bit values although the format has 16 bits.
            colours_8_bit = (values if values.max(initial=0) <= 255 else values // 256).astype(np.uint8)
        table = np.zeros((256, 3), np.uint8)
        table[: len(colours_8_bit)] = colours_8_bit[:256]
        return table

    def _indices(self) -> Pixels:
        return np.asarray(self.image.getchannel(0), np.uint8)

    def _ids(self) -> Pixels:
        indices, table = self._indices(), self._palette()
        used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
        if (table == table[:, :1]).all() and len(np.unique(table[used, 0])) == len(used):
            return np.asarray(table[indices, 0])
        if self.image.format == "GIF":
            raise UnsuitableError(
                "is a GIF with colours, which encoders renumber in each file; allowed: class ids as greys; export "
                "it as PNG"
            )
        if table[0].any() and not table[used[used > 0]].any(axis=1).all():
            raise UnsuitableError(
                f"has a palette in which 0 is the colour {tuple(table[0].tolist())} and another number is black, so "
                "what is background is unclear; allowed: 0 is black; write ids without a palette"
            )
        return indices


def open_raster(data: bytes) -> Raster:
    """Open and decode a file. Raises the errors of PIL, and `UnsuitableError` for several pages."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # checked here
    image: Image.Image = Image.open(BytesIO(data))
    _seek_page(image)
    _check_size(image)
    return _load_page(data, image)


def open_stack(data: bytes) -> Iterator[Raster] | None:
    """Return the pages of a TIFF file with several ones, in order; None for other files.

    Smaller copies are no pages. A page is valid until the next one is read. Raises the errors of PIL, and
    `UnsuitableError` for pages that are not the slices of one volume.
    """
    from PIL import Image

    if data[:2] not in TIFF_BYTE_ORDERS:
        return None
    image: Image.Image = Image.open(BytesIO(data))
    numbers = _full_pages(image)
    _check_dimensions(str(getattr(image, "tag_v2", {}).get(IMAGE_DESCRIPTION, "")), len(numbers))
    return _read_pages(data, image, numbers) if len(numbers) > 1 else None


def _read_pages(data: bytes, image: "Image", numbers: Sequence[int]) -> Iterator[Raster]:
    first: tuple[tuple[int, int], str] | None = None
    for number in numbers:
        image.seek(number)
        page = _load_page(data, image)
        first = first or (page.image.size, page.image.mode)
        if (page.image.size, page.image.mode) != first:
            raise UnsuitableError(
                f"has pages that differ: {_format(*first)} and {_format(page.image.size, page.image.mode)}; allowed: "
                "equal pages, the slices of a volume; save images as separate files, and smaller copies as reduced ones"
            )
        if page.is_truncated:
            raise UnsuitableError("has pages with 16 bits for each colour; allowed: grey, or 8 bits; convert it")
        yield page


def _format(size: tuple[int, int], mode: str) -> str:
    return f"{size[0]} x {size[1]} pixels ({mode})"


def _check_dimensions(description: str, pages: int) -> None:
    """Raise `UnsuitableError` for a stack with more dimensions than slices, or with slices that are no pages.

    `description` is that of ImageJ, such as "ImageJ=1.54f\nimages=60\nchannels=2\nslices=30".
    """
    if not description.startswith("ImageJ="):
        return
    lines = dict(line.partition("=")[::2] for line in description.splitlines())
    images, channels, slices, frames = (
        int(value) if (value := lines.get(name, "1")).isdigit() else 1
        for name in ("images", "channels", "slices", "frames")
    )
    if images > pages:
        raise UnsuitableError(
            f"holds {images} images but {pages} page{'s' * (pages > 1)}, as ImageJ writes stacks of more than 4 GB; "
            "allowed: a page for each slice; save it as BigTIFF"
        )
    if sum(length > 1 for length in (channels, slices, frames)) > 1:
        raise UnsuitableError(
            f"is a hyperstack of {channels} channels, {slices} slices and {frames} frames; allowed: slices only; save "
            "each channel and frame as a file"
        )


def _load_page(data: bytes, image: "Image") -> Raster:
    """Decode the page that an image is at."""
    from PIL import Image

    raw_mode = _read_raw_mode(image)  # before the image is loaded
    tags = dict(getattr(image, "tag_v2", {}))
    if tags.get(PLANAR_CONFIGURATION) == 2 and len(image.getbands()) > 1 and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8:
        raise UnsuitableError(
            "is a TIFF with a plane of more than 8 bits for each colour (planar configuration 2); allowed: colours "
            "pixel by pixel (planar configuration 1); save it like that"
        )
    orientation = int(image.getexif().get(ORIENTATION, 1) or 1)
    image.load()
    if orientation not in _UNDO_ORIENTATION:
        orientation = 1
    elif image.format == "TIFF":  # the only format that PIL rotates on loading
        image = image.transpose(Image.Transpose[_UNDO_ORIENTATION[orientation][0]])
    return Raster(data=data, image=image, raw_mode=raw_mode, orientation=orientation, tags=tags)


def read_size(path: Path) -> tuple[int, int] | None:
    """Return height and width in pixels by the header of a file, None if PIL does not know the format.

    Raises `OSError` if the file cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # checked when the file is decoded
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, SyntaxError, ValueError, TypeError, EOFError, struct.error):
        return None  # reported when the file is decoded
    except OSError as error:
        if error.errno is not None:
            raise
        return None  # a damaged file


def _check_size(image: "Image") -> None:
    """Raise `UnsuitableError` for an image that would take too much memory."""
    value_bytes = {"I": 4, "F": 4, "RGB": 4, "I;16": 2}.get(image.mode, len(image.getbands()))  # as stored by PIL
    check_pixels(image.height, image.width, value_bytes)


def check_pixels(height: int, width: int, pixel_bytes: int) -> None:
    """Raise `UnsuitableError` for an image that would take too much memory to be decoded at once."""
    if height * width > MAX_PIXELS and height * width * pixel_bytes > MAX_BYTES:
        raise UnsuitableError(
            f"has {width} x {height} pixels, which are too many to be decoded at once; allowed: {MAX_PIXELS:,} "
            f"({MAX_BYTES:,} of 8-bit grey), or a TIFF in tiles or strips of 8 or 16 bits with all samples of a pixel "
            "together; save it as a tiled TIFF"
        )


def parse_no_data(text: object) -> float:
    """Return the value of a nodata tag, NaN if it is no number."""
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return float("nan")


def _decode_16_bits(data: bytes, image: "Image", orientation: int) -> StoredValues:
    """Decode 16 bits per channel (PIL keeps 8) as (height, width, 3) RGB or (height, width, 4) RGBA."""
    import cv2

    values: StoredValues | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    # OpenCV applies the orientation of TIFF files only.
    if values is not None and data[:2] in TIFF_BYTE_ORDERS and orientation in _UNDO_ORIENTATION:
        values = _UNDO_ORIENTATION[orientation][1](values)
    if values is None or values.shape[:2] != image.size[::-1]:
        raise ValueError("its 16 bits a channel cannot be decoded")
    return np.asarray(values[..., [2, 1, 0, 3][: values.shape[2]]] if values.ndim == 3 else values)


def _seek_page(image: "Image") -> None:
    """Seek to the only page, ignoring thumbnails and the second image of an MPO file (JPEGs of phones).

    Raises `UnsuitableError` for several pages.
    """
    if image.format == "MPO":
        return
    pages = _full_pages(image)
    if len(pages) > 1:
        raise several_pages(len(pages))
    image.seek(pages[0] if pages else 0)


def is_pyramid(shapes: Sequence[tuple[int, int]], *, tiled: bool) -> bool:
    """Return whether pages of these heights and widths are one image, as in the files of slide scanners.

    The first page is tiled, and all others (levels of lower resolution, label) are smaller.
    """
    height, width = shapes[0]
    return tiled and all(other[0] < height and other[1] < width for other in shapes[1:])


def several_pages(count: int) -> UnsuitableError:
    """Return the error for a file with several pages or frames."""
    return UnsuitableError(f"has {count} pages or frames; allowed: one; save each one as a file")


def lossy_mask() -> UnsuitableError:
    """Return the error for a mask whose compression changes values."""
    return UnsuitableError(
        "is compressed in a way that changes numbers; allowed: PNG, TIFF, BMP, GIF, lossless WebP; export it again, or "
        "set `mask_threshold` for masks of 0 and 255"
    )


def _page_shape(image: "Image", page: int) -> tuple[int, int]:
    image.seek(page)
    return image.height, image.width


def _is_tiled(image: "Image") -> bool:
    image.seek(0)
    return TILE_WIDTH in image.tag_v2  # type: ignore[attr-defined]


def _full_pages(image: "Image") -> list[int]:
    """Return the numbers of the pages that are not smaller copies."""
    pages = list(range(getattr(image, "n_frames", 1)))
    if len(pages) > 1 and image.format == "TIFF":
        pages = [page for page in pages if not _is_reduced(image, page)]
        if len(pages) > 1 and is_pyramid([_page_shape(image, page) for page in pages], tiled=_is_tiled(image)):
            pages = pages[:1]
    return pages


def _is_reduced(image: "Image", page: int) -> bool:
    image.seek(page)
    return bool(int(image.tag_v2.get(SUBFILE, 0)) & 1)  # type: ignore[attr-defined]


def _read_raw_mode(image: "Image") -> str:
    tile = getattr(image, "tile", None) or [None]
    args = tile[0][3] if tile[0] else ""
    raw = args[0] if isinstance(args, tuple) and args else args
    return raw if isinstance(raw, str) else ""


def riff_chunks(data: bytes) -> list[bytes]:
    """Return the names of the chunks of a RIFF file, such as WebP."""
    names, offset = [], 12
    while offset + 8 <= len(data):
        names.append(data[offset : offset + 4])
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        offset += 8 + size + size % 2
    return names
