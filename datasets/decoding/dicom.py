"""Decoding of DICOM radiographs to display values (PS3.3 C.11: modality LUT, then window or VOI LUT)."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from datasets.decoding.dicom_decoders import decode_in_subprocess
from datasets.decoding.dicom_frames import frame_positions, functional_group
from datasets.decoding.raster import UnsuitableError
from datasets.decoding.volume import StoredVolume
from datasets.source import Pixels

Intensities = NDArray[np.float64]
SAFE_SYNTAXES = frozenset({JPEGBaseline8Bit, RLELossless, DeflatedExplicitVRLittleEndian})
"""Compressed transfer syntaxes whose decoders raise on damaged data instead of crashing."""

# pydicom warns about files that are usable, or that raise an error when they are decoded.
warnings.filterwarnings("ignore", module="pydicom")


class DicomImage(NamedTuple):
    """Pixels (height, width) grey or (height, width, 3) RGB, the PatientID ("" if missing), and the spacing.

    `spacing` are height and width of a pixel in mm, () if they are missing.
    """

    pixels: Pixels
    patient: str
    spacing: tuple[float, ...]


def decode_dicom(data: bytes) -> DicomImage:
    """Decode a file of one frame.

    Grey values are mapped by the first window, else by the first VOI lookup table, else scaled from their range; up
    to 8 bits with neither, and colours, are scaled from the range of the stored bits. MONOCHROME1 is inverted, so that
    dense is bright; padding is ignored and set to black. Raises the errors of pydicom for damaged files, `ValueError`
    for several frames (`read_dicom_volume`) and for pixels that cannot be decoded.
    """
    record = pydicom.dcmread(BytesIO(data))
    if int(record.get("NumberOfFrames") or 1) > 1:
        raise UnsuitableError(f"has {record.NumberOfFrames} frames; allowed: one; save each one as a file")
    stored = _stored_pixels(record, data)
    photometric = str(record.get("PhotometricInterpretation", ""))
    bits = int(record.get("BitsStored") or 8 * stored.itemsize)
    padding = _padding(stored, record)
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, record)
        bits = _palette_bits(record)
    pixels = _to_display(stored, record, bits, padding) if stored.ndim == 2 else _to_uint8(stored / (2.0**bits - 1))
    pixels = 255 - pixels if photometric == "MONOCHROME1" else pixels
    if padding is not None:
        pixels[padding] = 0
    return DicomImage(pixels, _patient(record), _lengths(record.get("PixelSpacing"), 2))


def read_dicom_volume(data: bytes) -> StoredVolume | None:
    """Return the frames of a multi-frame file after rescaling; None for files of one frame.

    Frames are as stored; `frame_order` is their order in space.
    Windows and lookup tables of the file are not applied, so that one window fits all volumes of a data set. Raises
    the errors of pydicom for damaged files, `ValueError` for pixels that cannot be decoded.
    """
    if int(pydicom.dcmread(BytesIO(data), stop_before_pixels=True).get("NumberOfFrames") or 1) < 2:
        return None
    record = pydicom.dcmread(BytesIO(data))
    photometric = str(record.get("PhotometricInterpretation", ""))
    stored = _stored_pixels(record, data)
    padding = _padding(stored, record)
    if photometric == "PALETTE COLOR":
        top = 2.0 ** _palette_bits(record) - 1
        stored = np.stack([_to_uint8(apply_color_lut(frame, record) / top) for frame in stored])
    elif stored.dtype == np.uint8 and int(record.get("BitsStored") or 8) < 8:
        stored = stored.astype(np.uint16)  # scaled to the full range like more than 8 bits
    slopes = _rescaling(record, len(stored))
    values = stored if slopes is None or stored.ndim != 3 else stored * slopes[0] + slopes[1]
    frames = frame_positions(record, len(stored))
    return StoredVolume(
        voxels=values.transpose(2, 1, 0, *range(3, values.ndim)), spacing=_voxel_spacing(record, frames.distance),
        patient=_patient(record), inverted=photometric == "MONOCHROME1",
        valid=None if padding is None else ~padding.transpose(2, 1, 0), frame_order=frames.order, remark=frames.remark,
    )  # fmt: skip


def _patient(record: Dataset) -> str:
    return str(record.get("PatientID") or "").strip()


def _voxel_spacing(record: Dataset, distance: float | None) -> tuple[float, ...]:
    """Return width, height and distance of the frames in mm, () if the file does not state them.

    `distance` is that of the positions of the frames: None if these are not stated, NaN if they have no common one.
    """
    measures = functional_group(record, "PixelMeasuresSequence") or record
    sides = _lengths(measures.get("PixelSpacing", record.get("PixelSpacing")), 2)
    if distance is not None:
        return (sides[1], sides[0], distance) if sides and distance > 0 else ()
    between = measures.get("SpacingBetweenSlices") or record.get("SpacingBetweenSlices")
    stated = _lengths([between or measures.get("SliceThickness") or record.get("SliceThickness")], 1)
    return (sides[1], sides[0], *stated) if sides and stated else ()


def _lengths(values: Iterable[Any] | None, count: int) -> tuple[float, ...]:
    """Return this many positive numbers, () for anything else."""
    try:
        lengths = tuple(float(value) for value in values or ())
    except (TypeError, ValueError):
        return ()
    return lengths if len(lengths) == count and all(0 < length < np.inf for length in lengths) else ()


def _rescaling(record: Dataset, frames: int) -> tuple[Intensities, Intensities] | None:
    """Return slope and intercept of each frame, (frames, 1, 1); None without any."""
    groups = [functional_group(record, "PixelValueTransformationSequence", frame) or record for frame in range(frames)]
    if not any("RescaleSlope" in group or "RescaleIntercept" in group for group in groups):
        return None
    slopes = [1.0 if group.get("RescaleSlope") is None else float(group.RescaleSlope) for group in groups]
    intercepts = [0.0 if group.get("RescaleIntercept") is None else float(group.RescaleIntercept) for group in groups]
    return np.array(slopes)[:, None, None], np.array(intercepts)[:, None, None]


def _palette_bits(record: Dataset) -> int:
    """Return the bits per colour: 8 if no entry needs more, as some files store 8-bit colours in 16 bits."""
    if int(record.RedPaletteColorLookupTableDescriptor[2]) <= 8:
        return 8
    tables = [getattr(record, f"{name}PaletteColorLookupTableData", b"") for name in ("Red", "Green", "Blue")]
    largest = max(np.frombuffer(table[: len(table) // 2 * 2], "<u2").max(initial=0) for table in tables)
    return 8 if largest <= 255 else 16


def _padding(stored: NDArray[Any], record: Dataset) -> NDArray[np.bool_] | None:
    """Return a mask of the padding pixels (PS3.3 C.7.5.1.1.2), None without padding."""
    if record.get("SamplesPerPixel", 1) != 1 or record.get("PixelPaddingValue") is None:
        return None
    limits = [
        int(record.get(name, record.PixelPaddingValue)) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ]
    # Some files store negative values as unsigned integers.
    limits = [int(np.int64(limit).astype(stored.dtype)) for limit in limits]
    is_padding = (stored >= min(limits)) & (stored <= max(limits))
    return is_padding if is_padding.any() and not is_padding.all() else None


def _stored_pixels(record: Dataset, data: bytes) -> NDArray[Any]:
    if "PixelData" not in record:
        raise ValueError("its pixel data is missing or cut off")
    syntax = record.file_meta.TransferSyntaxUID
    bits, high = record.get("BitsStored"), record.get("HighBit")
    if not syntax.is_compressed and bits is not None and high is not None and high >= bits:
        raise UnsuitableError(
            f"stores {bits} bits a pixel of which the highest is bit {high}; allowed: bit {bits - 1}; export it again"
        )
    try:
        if syntax.is_compressed and syntax not in SAFE_SYNTAXES:
            return decode_in_subprocess(data)
        # Pillow decodes plain JPEG three times as fast as GDCM.
        return pixel_array(record, decoding_plugin="pillow" if syntax == JPEGBaseline8Bit else "")
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"its pixel data ({syntax.name}) is damaged or of no kind that can be decoded") from error


def _to_display(stored: NDArray[Any], record: Dataset, bits: int, padding: NDArray[np.bool_] | None) -> Pixels:
    window = _window(record)
    if window is None and "VOILUTSequence" not in record and stored.dtype == np.uint8:
        return np.array(stored, np.uint8) if bits == 8 else _to_uint8(stored / (2.0**bits - 1))
    for name, neutral in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        if name in record and record.get(name) is None:
            setattr(record, name, neutral)
    values = np.asarray(apply_modality_lut(stored, record), np.float64)
    if window is not None:
        function = str(record.get("VOILUTFunction") or "LINEAR").upper()
        if function not in VOI_FUNCTIONS:
            raise ValueError(f"its VOI LUT function is {function}, where {', '.join(VOI_FUNCTIONS)} are known")
        return _to_uint8(VOI_FUNCTIONS[function](values, *window))
    if "VOILUTSequence" in record:
        return _to_uint8(_apply_voi_table(values, record.VOILUTSequence[0]))
    valid = values if padding is None else values[~padding]
    return _to_uint8((values - valid.min()) / max(float(np.ptp(valid)), 1e-12))


def _to_uint8(shares: Intensities) -> Pixels:
    return np.asarray(np.rint(np.clip(shares, 0, 1) * 255), np.uint8)


def _window(record: Dataset) -> tuple[float, float] | None:
    """Return centre and width of the first window, None if it is missing or has no width."""
    if record.get("WindowCenter") is None or record.get("WindowWidth") is None:
        return None
    centre, width = (float(np.atleast_1d(record[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    exact = record.get("VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID")
    return (centre, width) if width > (0 if exact else 1) else None


VOI_FUNCTIONS: Mapping[str, Callable[[Intensities, float, float], Intensities]] = {
    "LINEAR": lambda values, centre, width: (values - (centre - 0.5)) / (width - 1) + 0.5,
    "LINEAR_EXACT": lambda values, centre, width: (values - centre) / width + 0.5,
    "SIGMOID": lambda values, centre, width: 1 / (1 + np.exp(-4 * (values - centre) / width)),
}
"""Output in 0..1 by VOI LUT function (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""


def _apply_voi_table(values: Intensities, table: Dataset) -> Intensities:
    """Apply a VOI lookup table; values outside it take the first or last entry (PS3.3 C.11.2.1.1)."""
    _, first, bits = table.LUTDescriptor
    data = table.LUTData
    entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    positions = np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.int64)
    return np.asarray(entries[positions] / (2.0**bits - 1), np.float64)
