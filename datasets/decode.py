"""Image files as 8-bit arrays. A file that cannot be decoded to its last row is refused."""

import struct
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError
from datasets.sample import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["image", "ids", "foreground"]
"""What a file holds: a picture, class ids of exclusive classes, or one class where anything above 0 counts."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"})
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
"""What PIL and pydicom raise on damaged files."""


def read(path: Path, kind: Kind) -> Pixels:
    """Read and decode one file; see `decode`."""
    try:
        return decode(path.read_bytes(), kind, path.name)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); allowed: a readable file; restore it") from error


def decode(data: bytes, kind: Kind, name: str) -> Pixels:
    """Decode PNG, JPEG, TIFF or DICOM bytes.

    `image`: (height, width) grey or (height, width, 3) RGB, upright as its EXIF orientation says; alpha is
    dropped, palettes are expanded, more than 8 bits are scaled from the image's own range (DICOM: see
    `decode_dicom`). `ids`: (height, width), the stored numbers. `foreground`: (height, width), 1 where any
    colour is above 0. Raises `DataError` naming the file.
    """
    return examine(data, kind, name)[0]


def examine(data: bytes, kind: Kind, name: str) -> tuple[Pixels, str]:
    """Decode as `decode` does, and return the patient that a DICOM file names, "" for other files."""
    from PIL.Image import DecompressionBombError

    try:
        if kind == "image" and data[128:132] == b"DICM":
            from datasets.dicom import decode_dicom

            return decode_dicom(data)
        return DECODERS[kind](data), ""
    except (*BROKEN, DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if " object at 0x" in reason:  # PIL names its own buffer where it knows no format
            reason = "no image format is recognised"
        raise DataError(
            f"{name} cannot be decoded as {kind} ({reason}); allowed: a complete PNG, JPEG, TIFF or DICOM file; "
            "restore or remove it"
        ) from error


def luma(pixels: Pixels) -> Pixels:
    """Reduce (height, width[, 3]) RGB to (height, width) grey (ITU-R BT.601 weights)."""
    import cv2

    return pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _image(data: bytes) -> Pixels:
    from PIL import ImageOps

    image = _loaded(data)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        return _to_bytes(values, values.min(), values.max())
    mode = "L" if image.mode in {"1", "L", "LA", "La"} else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))  # converting always copies


def _ids(data: bytes) -> Pixels:
    values = _channels(_loaded(data))
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise ValueError("it is in colour, where each pixel should hold one class id")
        values = values[..., 0]
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"it holds the id {values.max()}, where 0 to 255 are possible")
    return values.astype(np.uint8)


def _foreground(data: bytes) -> Pixels:
    image = _loaded(data)
    if image.mode == "RGBA":
        pixels = np.asarray(image).view("<u4")[..., 0]  # alpha is the last byte
        return np.asarray((pixels & 0xFFFFFF) > 0, np.uint8)
    values = _channels(image)
    planes = [values[..., channel] for channel in range(values.shape[2])] if values.ndim == 3 else [values]
    return np.asarray(np.logical_or.reduce([plane > 0 for plane in planes]), np.uint8)


DECODERS: Mapping[Kind, Callable[[bytes], Pixels]] = {
    "image": _image,
    "ids": _ids,
    "foreground": _foreground,
}


def _loaded(data: bytes) -> "Image":
    from PIL import Image

    image = Image.open(BytesIO(data))
    image.load()
    return image


def _channels(image: "Image") -> NDArray[Any]:
    """Stored numbers without alpha; a palette's indices stay as they are, for they are the ids."""
    if image.mode in {"LA", "La", "PA"}:
        return np.asarray(image)[..., 0]
    return np.asarray(image)[..., :3] if len(image.getbands()) > 3 else np.asarray(image)


def _to_bytes(values: NDArray[np.float64], low: float, high: float) -> Pixels:
    shares = (np.clip(values, low, high) - low) / max(high - low, 1e-12)
    return np.asarray(np.rint(shares * 255), np.uint8)
