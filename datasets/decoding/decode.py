"""Decoding of image files to 8-bit arrays as stored. Files that cannot be decoded completely are an error."""

import errno
import hashlib
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Final, Literal

import numpy as np

from datasets.decoding.bands import read_bands
from datasets.decoding.mask_coding import MaskCoding
from datasets.decoding.raster import (
    Raster,
    StoredValues,
    UnsuitableError,
    lossy_mask,
    open_raster,
    open_stack,
    read_size,
)
from datasets.decoding.tiff import read_tiff
from datasets.decoding.volume import SINGLE, Geometry, StoredVolume, to_slices
from datasets.errors import DataError
from datasets.large import by_bands, copy_into, is_large, temporary_array
from datasets.settings import FileChannels, VolumeSettings
from datasets.source import Pixels

Kind = Literal["image", "ids", "foreground"]
"""Content of a file: an image, ids of exclusive classes, or a mask of one class (values above 0)."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".svs", ".dcm"})
VOLUME_SUFFIXES = frozenset({".nii", ".nii.gz"})
"""Suffixes of files that are always volumes."""
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk without room for temporary files."""
CHANNEL: Final = re.compile(r"(.+)_(\d{4})")
"""Names of files with one channel of an image, as nnU-Net writes them."""
STORED_MODES: Final = frozenset({"L", "RGB", "F", "I", "I;16", "I;16B", "I;16L", "I;16N"})
"""Modes of Pillow's images whose arrays are grey or RGB; others have palettes, alpha or other colours."""
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""Exceptions that PIL, OpenCV, tifffile and pydicom raise on damaged files."""
HEADER_BYTES: Final = 256
"""Length of the start of a file that shows its format."""
_WHOLE_LOCK: Final = Lock()
"""Held while a large image is decoded as a whole."""

# PIL warns about files that are usable, or that raise an error when they are decoded.
warnings.filterwarnings("ignore", module="PIL")
# tifffile logs damaged tags before it raises an error, or goes on without them.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """A decoded file: pixels, the PatientID of a DICOM file, and a warning for the user ("" if none).

    Pixels of volumes have a first axis of slices.
    """

    pixels: Pixels
    geometry: Geometry = SINGLE
    patient: str = ""
    remark: str = ""


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, also `.nii.gz`."""
    lower = name.lower()
    return ".nii.gz" if lower.endswith(".nii.gz") else lower[lower.rfind(".") :] if "." in lower else ""


def stem_of(path: str) -> str:
    """Return the file name of a path without its suffix, also without `.nii.gz`."""
    name = path.rpartition("/")[2]
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else PurePosixPath(name).stem


def split_channel(stem: str) -> tuple[str, int | None]:
    """Split a file name without suffix, such as `case_0001`, into its case and the number of its channel."""
    match = CHANNEL.fullmatch(stem)
    return (match[1], int(match[2])) if match else (stem, None)


def read(
    path: Path,
    kind: Kind,
    volumes: VolumeSettings | None = None,
    channels: FileChannels | None = None,
    coding: MaskCoding | None = None,
) -> Pixels:
    """Read and decode a file; see `examine_file`."""
    return examine_file(path, kind, volumes, channels, coding).pixels


def examine_file(
    path: Path,
    kind: Kind,
    volumes: VolumeSettings | None = None,
    channels: FileChannels | None = None,
    coding: MaskCoding | None = None,
) -> Decoded:
    """Read a file and decode it like `examine`. A large image is a memory-mapped `datasets.large.temporary_array`."""
    try:
        if is_large_file(path):
            return examine_large(path, kind, path.name, coding)
        return examine(path.read_bytes(), kind, path.name, volumes, channels, coding)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); allowed: a readable file; restore it") from error


def decode(data: bytes, kind: Kind, name: str) -> Pixels:
    """Decode PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM bytes; pixels as stored, EXIF orientation is ignored.

    `image`: (height, width) grey, (height, width, 3) RGB or (height, width, bands) of a TIFF file with bands that are
    no colours; alpha is dropped, palettes are expanded, more than 8 bits are scaled from the finite range of the image
    or band (DICOM: see `decode_dicom`).
    `ids`: (height, width), the stored values; for palette images the greys, or the indices if it has colours.
    `foreground`: (height, width), 1 where any channel is above 0.
    For masks of one colour with transparent pixels the alpha channel is the mask. Raises `DataError` naming the file.
    """
    return examine(data, kind, name).pixels


def examine(
    data: bytes,
    kind: Kind,
    name: str,
    volumes: VolumeSettings | None = None,
    channels: FileChannels | None = None,
    coding: MaskCoding | None = None,
) -> Decoded:
    """Decode like `decode`, but also return geometry, patient and a warning.

    With `volumes`, NIfTI files and files of several pages or frames are volumes, (slices, height, width[, channels]).
    Images are scaled to 8 bits over the whole volume; see `datasets.decoding.volume`. `channels` are those of NIfTI
    images of four dimensions, which are otherwise refused. `coding` is that of masks whose values are no class ids.
    """
    if kind == "image":
        coding = None
    with _named_errors(name, kind, data, volumes=volumes is not None):
        bands = read_bands(data) if kind == "image" else None
        if bands is not None:
            return Decoded(pixels=_bands_image(bands.values, bands.no_data))
        volume = None if volumes is None else _volume(data, kind, name, volumes, channels, coding)
        if volume is not None:
            return volume
        if kind == "image" and data[128:132] == b"DICM":
            from datasets.decoding.dicom import decode_dicom

            dicom = decode_dicom(data)
            return Decoded(pixels=dicom.pixels, patient=dicom.patient, geometry=Geometry(spacing=dicom.spacing))
        raster = open_raster(data)
        pixels = DECODERS[kind](raster) if coding is None else _coded(raster, coding)
        return Decoded(pixels=pixels, remark=_remark(raster, "ids" if coding else kind, volumes))


def is_large_file(path: Path) -> bool:
    """Return whether a file has a large image, by its header. Raises `OSError` if it cannot be read."""
    size = None if path.suffix.lower() == ".dcm" else read_size(path)
    return size is not None and is_large(*size)


def examine_large(path: Path, kind: Kind, name: str, coding: MaskCoding | None = None) -> Decoded:
    """Decode the file of a large image like `examine`, TIFF part by part; `pixels` are memory-mapped.

    Other files are decoded as a whole, one at a time, because they take several times their size in memory.
    """
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    with _named_errors(name, kind, start):
        is_read_by_parts = start[:2] in (b"II", b"MM") and (coding is None or kind == "image")
        parts = read_tiff(path, kind) if is_read_by_parts else None
        if parts is not None:
            pixels, orientation = parts
            return Decoded(pixels=pixels, remark=_orientation_remark(orientation))
    with _WHOLE_LOCK:
        decoded = examine(path.read_bytes(), kind, name, coding=coding)
        pixels = temporary_array(decoded.pixels.shape)
        copy_into(pixels, decoded.pixels)
    return replace(decoded, pixels=pixels)


def content_hash(path: Path) -> str:
    """Return the BLAKE2b-128 hash of a file, read part by part. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextmanager
def _named_errors(name: str, kind: Kind, data: bytes, *, volumes: bool = False) -> Iterator[None]:
    """Raise errors of decoding as `DataError`, with the name of the file; `data` are its first bytes."""
    try:
        yield
    except UnsuitableError as error:
        raise DataError(f"{name} {error}") from error
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise
        nifti = ", NIfTI" if volumes else ""
        raise DataError(
            f"{name} cannot be decoded as {kind} ({_reason(error, data)}); allowed: a complete PNG, JPEG, TIFF, BMP, "
            f"GIF, WebP{nifti} or DICOM file; restore, convert or remove it"
        ) from error


def _volume(
    data: bytes,
    kind: Kind,
    name: str,
    settings: VolumeSettings,
    channels: FileChannels | None,
    coding: MaskCoding | None,
) -> Decoded | None:
    """Decode a volume; None for a file with a single image."""
    if suffix_of(name) in VOLUME_SUFFIXES:
        from datasets.decoding.nifti import read_nifti

        return _sliced(read_nifti(data, channels if kind == "image" else None), kind, settings, coding)
    if kind == "image" and data[128:132] == b"DICM":
        from datasets.decoding.dicom import read_dicom_volume

        volume = read_dicom_volume(data)
        return None if volume is None else _sliced(volume, kind, settings)
    pages = open_stack(data)
    return None if pages is None else _stacked(pages, kind, settings, coding)


def _sliced(volume: StoredVolume, kind: Kind, settings: VolumeSettings, coding: MaskCoding | None = None) -> Decoded:
    geometry = volume.geometry(settings)
    if kind == "image":
        pixels = volume.image(settings)
    else:
        values = to_slices(volume.voxels, geometry.axis)
        if coding is not None:
            pixels = coding.of_values(values)
        else:
            pixels = _to_ids(values) if kind == "ids" else _to_foreground(values)
    return Decoded(pixels=np.ascontiguousarray(pixels), geometry=geometry, patient=volume.patient, remark=volume.remark)


def _stacked(pages: Iterator[Raster], kind: Kind, settings: VolumeSettings, coding: MaskCoding | None) -> Decoded:
    """Decode the pages of a TIFF file: masks page by page, images together, so that they share one scale."""
    if kind != "image":
        decoded = np.stack([DECODERS[kind](page) if coding is None else _coded(page, coding) for page in pages])
        return _sliced(StoredVolume(voxels=decoded.transpose(2, 1, 0)), kind, settings)
    colours, inverted, no_data = [], False, float("nan")
    for page in pages:
        colours.append(page.colour)
        inverted, no_data = page.white_is_zero and page.colour.dtype != np.uint8, page.no_data
    stored = np.stack(colours)
    voxels = stored.transpose(2, 1, 0, *range(3, stored.ndim))
    valid = None if np.isnan(no_data) else voxels != _cast_number(no_data, voxels.dtype)
    return _sliced(StoredVolume(voxels=voxels, inverted=inverted, valid=valid), kind, settings)


def _reason(error: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: fetch the file with `git lfs pull`"
    reason = " ".join(str(error).split()) or type(error).__name__
    if " object at 0x" not in reason:
        return reason
    # For unknown formats the message of PIL contains the repr of a buffer.
    if data[:2] in (b"II", b"MM"):
        return "a TIFF that is cut off or of a kind that is not read, such as 64 bits or float colours"
    return "no image format is recognised"


def channels_of(pixels: Pixels) -> int:
    """Return the number of channels of (height, width) or (height, width, channels)."""
    return pixels.shape[2] if pixels.ndim == 3 else 1


def displayed(pixels: Pixels) -> Pixels:
    """Return grey or RGB for display: the first channel of images with any other number of channels."""
    return pixels if channels_of(pixels) in (1, 3) else pixels[..., 0]


def luma(pixels: Pixels) -> Pixels:
    """Reduce (height, width, 3) RGB to (height, width) grey (ITU-R BT.601 weights), any other number to the mean."""
    import cv2

    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] != 3:
        return by_bands(lambda part: np.asarray(np.rint(part.mean(axis=2)), np.uint8), pixels)
    return by_bands(lambda part: np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), np.uint8), pixels)


def _image(raster: Raster) -> Pixels:
    colour = raster.colour
    if colour.dtype == np.uint8:
        return colour
    return _scaled(colour, no_data=raster.no_data, white_is_zero=raster.white_is_zero)


def _bands_image(bands: StoredValues, no_data: float) -> Pixels:
    """Return (height, width, bands) of 8 bits."""
    if bands.dtype == np.uint8:
        return bands
    return np.stack([_scaled(bands[..., number], no_data=no_data) for number in range(bands.shape[2])], axis=2)


def pixels_of(image: object, name: str) -> Pixels:
    """Return an image in memory as `decode` returns a file with these values; 8 bits are copied as they are.

    Args:
        image: (height, width) grey, (height, width, 3) RGB or (height, width, channels): an array, an image of Pillow,
            or another object that numpy converts, such as a tensor on the CPU.
        name: The image, for messages.

    Raises:
        DataError: It is no array, has another shape, or no numbers.
    """
    values = _array_of(image, name)
    if values.ndim not in (2, 3) or values.size == 0:
        allowed = "allowed: (height, width) or (height, width, channels) with at least one pixel"
        raise DataError(f"{name} has the shape {values.shape}; {allowed}; transpose or index it")
    if values.dtype.kind not in "buif":
        raise DataError(f"{name} has the type {values.dtype}; allowed: whole numbers or floats; convert it")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype == np.uint8:
        return np.array(values, order="C")
    return _bands_image(values, float("nan")) if channels_of(values) not in (1, 3) else _scaled(values)


def _array_of(image: object, name: str) -> StoredValues:
    import PIL.Image

    if isinstance(image, PIL.Image.Image) and image.mode not in STORED_MODES:
        image = image.convert("L" if image.mode in {"1", "LA", "La"} else "RGB")
    if hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        try:
            return np.asarray(image)
        except (TypeError, ValueError, RuntimeError) as error:  # such as tensors on a GPU
            reason = f"cannot be converted to an array ({str(error).splitlines()[0]})"
    else:
        reason = f"is a {type(image).__name__}"
    raise DataError(f"{name} {reason}; allowed: arrays of numpy, images of Pillow, tensors on the CPU; convert it")


def _scaled(values: StoredValues, *, no_data: float = float("nan"), white_is_zero: bool = False) -> Pixels:
    """Scale values from their finite range to 8 bits; invalid ones become 0."""
    valid = np.isfinite(values) & (values != _cast_number(no_data, values.dtype))
    if not valid.any():
        return np.zeros(values.shape, np.uint8)
    values = values.astype(np.float64)
    low, high = values[valid].min(), values[valid].max()
    normalised = (np.where(valid, values, low) - low) / max(high - low, 1e-12)
    displayed = 1 - normalised if white_is_zero else normalised
    return np.asarray(np.rint(np.where(valid, displayed, 0) * 255), np.uint8)


def _cast_number(number: float, kind: np.dtype[np.generic]) -> float:
    """Convert a number parsed from text, such as -3.4e+38, to the precision of the pixel type."""
    with np.errstate(over="ignore"):
        return float(np.float64(number).astype(kind)) if kind.kind == "f" else number


def _ids(raster: Raster) -> Pixels:
    if not raster.is_palette:
        _check_alpha(raster)
    values = raster.numbers()
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise UnsuitableError("is in colour; allowed: one class id a pixel; write ids, or a file for each class")
        values = values[..., 0]
    return _to_ids(values)


def _to_ids(values: StoredValues) -> Pixels:
    _check_whole(values)
    if values.min() < 0 or values.max() > 255:
        raise UnsuitableError(
            f"holds the id {values.min() if values.min() < 0 else values.max():.0f}; allowed: 0 to 255; numbers of "
            "objects are no classes: write the class of each pixel"
        )
    return values.astype(np.uint8)


def _foreground(raster: Raster) -> Pixels:
    _check_alpha(raster)
    values = raster.colour
    return np.asarray(np.logical_or.reduce([_to_foreground(plane) for plane in _planes(values)]), np.uint8)


def _to_foreground(values: StoredValues) -> Pixels:
    _check_whole(values)
    if values.min() < 0:
        raise UnsuitableError(
            f"holds the number {values.min():.0f}; allowed: 0 outside and numbers above 0 inside; write these"
        )
    return np.asarray(values > 0, np.uint8)


def _planes(values: StoredValues) -> list[StoredValues]:
    return [values[..., channel] for channel in range(values.shape[2])] if values.ndim == 3 else [values]


DECODERS: Mapping[Kind, Callable[[Raster], Pixels]] = {
    "image": _image,
    "ids": lambda raster: _mask(raster, _ids),
    "foreground": lambda raster: _mask(raster, _foreground),
}


def _mask(raster: Raster, read_values: Callable[[Raster], Pixels]) -> Pixels:
    """Return the mask in the alpha channel if the colour is constant, else that of the values."""
    _check_mask(raster)
    shape = raster.alpha_shape()
    return read_values(raster) if shape is None else shape


def _coded(raster: Raster, coding: MaskCoding) -> Pixels:
    """Return the mask of a file whose values are no class ids."""
    _check_mask(raster, is_exact=not coding.is_lossy)
    _check_alpha(raster)
    return coding.of_raster(raster)


def _check_mask(raster: Raster, *, is_exact: bool = True) -> None:
    if raster.white_is_zero:
        raise UnsuitableError(
            "has a TIFF header that says that 0 is white, so what is foreground is unclear; allowed: 0 is black; save "
            "it like that"
        )
    if raster.lossy and is_exact:
        raise lossy_mask()


def _check_alpha(raster: Raster) -> None:
    if raster.hides_colour:
        raise UnsuitableError(
            "has transparent pixels that are not black, so what is foreground is unclear; allowed: black outside of "
            "the foreground; save it without transparency"
        )


def _check_whole(values: StoredValues) -> None:
    if not np.issubdtype(values.dtype, np.floating):
        return
    fraction = values[values != np.floor(values)]  # NaN is unequal to itself
    if fraction.size:
        raise UnsuitableError(
            f"holds the number {fraction.flat[0]:.3g}; allowed: whole numbers in a mask; threshold it, or write ids"
        )


def _remark(raster: Raster, kind: Kind, volumes: VolumeSettings | None) -> str:
    remarks = [_orientation_remark(raster.orientation)]
    if volumes is not None and volumes.window is not None and kind == "image":
        remarks.append(
            "is a single image, to which `window` does not apply; allowed: volumes, or data without `window`; keep "
            "single images and volumes in separate data sets"
        )
    further = raster.further_samples if kind == "image" else 0
    if further:
        remarks.append(
            f"has {further} sample{'s' if further > 1 else ''} a pixel besides the colours, ignored; allowed: colours, "
            "or bands that are not colours (TIFF photometric MinIsBlack); save it like that if they are channels"
        )
    if kind == "foreground" and _has_soft_edges(raster.colour):
        remarks.append(
            "has dark greys beside white, which count as foreground; allowed: 0 and one other number; threshold it if "
            "they are soft edges or traces of JPEG compression"
        )
    return "\n".join(filter(None, remarks))


def _orientation_remark(orientation: int) -> str:
    if orientation == 1:
        return ""
    return (
        f"has the EXIF orientation {orientation}, which is ignored; allowed: images and annotation that fit as stored; "
        "look at the contact sheet of `study data check`"
    )


def _has_soft_edges(values: StoredValues) -> bool:
    """Whether grey values occur both in the lower half and at the maximum of the range, unlike class ids."""
    grey, *channels = _planes(values)
    if values.dtype.kind != "u" or any(not np.array_equal(grey, channel) for channel in channels):
        return False
    top = np.iinfo(values.dtype).max
    return bool(grey.max() == top and ((grey > 0) & (grey <= top // 2)).any())
