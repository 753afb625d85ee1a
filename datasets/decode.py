"""Image files as 8-bit arrays, pixels as stored. A file that cannot be decoded to its last row is refused."""

import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.errors import DataError
from datasets.raster import Raster, UnsuitableError, open_raster
from datasets.sample import Pixels

Kind = Literal["image", "ids", "foreground"]
"""What a file holds: a picture, class ids of exclusive classes, or one class where anything above 0 counts."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm"})
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What PIL, OpenCV and pydicom raise on damaged files."""

# What PIL warns of is no reason to refuse a file, or decoding then fails with a reason of its own.
warnings.filterwarnings("ignore", module="PIL")


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """A decoded file: pixels, the PatientID of a DICOM file, and what a user must know of the file ("" if nothing)."""

    pixels: Pixels
    patient: str = ""
    remark: str = ""


def read(path: Path, kind: Kind) -> Pixels:
    """Read and decode one file; see `decode`."""
    try:
        return decode(path.read_bytes(), kind, path.name)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); allowed: a readable file; restore it") from error


def decode(data: bytes, kind: Kind, name: str) -> Pixels:
    """Decode PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM bytes; pixels as stored, EXIF orientation is ignored.

    `image`: (height, width) grey or (height, width, 3) RGB; alpha is dropped, palettes are expanded, more than 8 bits
    are scaled from the image's own finite range (DICOM: see `decode_dicom`).
    `ids`: (height, width), the stored numbers; a palette of black and white holds 0 and 255.
    `foreground`: (height, width), 1 where any colour is above 0, or, where the colour is the same everywhere, where
    alpha is. Raises `DataError` naming the file.
    """
    return examine(data, kind, name).pixels


def examine(data: bytes, kind: Kind, name: str) -> Decoded:
    """Decode as `decode` does, with what else the file says."""
    from PIL.Image import DecompressionBombError

    try:
        if kind == "image" and data[128:132] == b"DICM":
            from datasets.dicom import decode_dicom

            pixels, patient = decode_dicom(data)
            return Decoded(pixels=pixels, patient=patient)
        raster = open_raster(data)
        return Decoded(pixels=DECODERS[kind](raster), remark=_remark(raster))
    except UnsuitableError as error:
        raise DataError(f"{name} {error}") from error
    except (*BROKEN, DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if " object at 0x" in reason:  # PIL names its own buffer where it knows no format
            reason = "no image format is recognised"
        raise DataError(
            f"{name} cannot be decoded as {kind} ({reason}); allowed: a complete PNG, JPEG, TIFF, BMP, GIF, WebP or "
            "DICOM file; restore or remove it"
        ) from error


def luma(pixels: Pixels) -> Pixels:
    """Reduce (height, width[, 3]) RGB to (height, width) grey (ITU-R BT.601 weights)."""
    import cv2

    return pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _image(raster: Raster) -> Pixels:
    colour = raster.colour()
    if colour.dtype == np.uint8:
        return colour
    values = colour.astype(np.float64)
    known = np.isfinite(values) & (values != raster.no_data)
    if not known.any():
        return np.zeros(values.shape, np.uint8)
    low, high = values[known].min(), values[known].max()
    shares = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    shown = 1 - shares if raster.white_is_zero else shares
    return np.asarray(np.rint(np.where(known, shown, 0) * 255), np.uint8)


def _ids(raster: Raster) -> Pixels:
    values = raster.numbers()
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise UnsuitableError("is in colour; allowed: one class id a pixel; write ids, or a file for each class")
        values = values[..., 0]
    _check_whole(values)
    if values.min() < 0 or values.max() > 255:
        raise UnsuitableError(
            f"holds the id {max(values.max(), -values.min()):.0f}; allowed: 0 to 255; numbers of objects are no "
            "classes: write the class of each pixel"
        )
    return values.astype(np.uint8)


def _foreground(raster: Raster) -> Pixels:
    values = raster.colour()
    _check_whole(values)
    planes = [values[..., channel] for channel in range(values.shape[2])] if values.ndim == 3 else [values]
    return np.asarray(np.logical_or.reduce([plane > 0 for plane in planes]), np.uint8)


DECODERS: Mapping[Kind, Callable[[Raster], Pixels]] = {
    "image": _image,
    "ids": lambda raster: _mask(raster, _ids),
    "foreground": lambda raster: _mask(raster, _foreground),
}


def _mask(raster: Raster, read_values: Callable[[Raster], Pixels]) -> Pixels:
    """Return the shape in the alpha channel where only that varies, else what the values say."""
    _check_mask(raster)
    shape = raster.alpha_shape()
    return read_values(raster) if shape is None else shape


def _check_mask(raster: Raster) -> None:
    if raster.white_is_zero:
        raise UnsuitableError(
            "has a TIFF header that says that 0 is white, so what is foreground is unclear; allowed: 0 is black; save "
            "it like that"
        )
    if raster.lossy:
        raise UnsuitableError(
            "is compressed in a way that changes numbers; allowed: PNG, TIFF, BMP, GIF, lossless WebP; export it again"
        )


def _check_whole(values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> None:
    if not np.issubdtype(values.dtype, np.floating):
        return
    fraction = values[values != np.floor(values)]  # NaN is unequal to itself
    if fraction.size:
        raise UnsuitableError(
            f"holds the number {fraction.flat[0]:.3g}; allowed: whole numbers in a mask; threshold it, or write ids"
        )


def _remark(raster: Raster) -> str:
    if raster.orientation == 1:
        return ""
    return (
        f"has the EXIF orientation {raster.orientation}, which is ignored; allowed: images and annotation that fit as "
        "stored; look at the contact sheet of `study data check`"
    )
