"""DICOM radiographs as they would be shown on a screen (PS3.3 C.11: modality, then window or table)."""

import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from datasets.decoding.dicom_decoders import decode_apart
from datasets.decoding.raster import UnsuitableError
from datasets.source import Pixels

Values = NDArray[np.float64]
SAFE = frozenset({JPEGBaseline8Bit, RLELossless, DeflatedExplicitVRLittleEndian})
"""Compressed syntaxes whose decoders raise on damaged data and do no worse."""

# What pydicom warns of is no reason to refuse a file, or decoding then fails with a reason of its own.
warnings.filterwarnings("ignore", module="pydicom")


def decode_dicom(data: bytes) -> tuple[Pixels, str]:
    """Return (height, width) grey or (height, width, 3) RGB, and the PatientID ("" where it has none).

    Grey is shown through the first window, else the first VOI lookup table, else over its own range; up to 8 bits
    with neither, and colour, over the range of the bits stored. MONOCHROME1 is inverted, so that bright is dense;
    padding takes no part and is black. Raises what pydicom raises on damaged files, `ValueError` for several frames
    and pixels that cannot be decoded.
    """
    record = pydicom.dcmread(BytesIO(data))
    if int(record.get("NumberOfFrames") or 1) > 1:
        raise UnsuitableError(f"has {record.NumberOfFrames} frames; allowed: one; save each one as a file")
    stored = _stored(record, data)
    photometric = str(record.get("PhotometricInterpretation", ""))
    bits = int(record.get("BitsStored") or 8 * stored.itemsize)
    padding = _padding(stored, record)
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, record)
        bits = _palette_bits(record)
    pixels = _shown(stored, record, bits, padding) if stored.ndim == 2 else _bytes(stored / (2.0**bits - 1))
    pixels = 255 - pixels if photometric == "MONOCHROME1" else pixels
    if padding is not None:
        pixels[padding] = 0
    return pixels, str(record.get("PatientID") or "").strip()


def _palette_bits(record: Dataset) -> int:
    """Return the bits of the colours: 8 where no entry needs more, as some files have 8-bit colours in 16 bits."""
    if int(record.RedPaletteColorLookupTableDescriptor[2]) <= 8:
        return 8
    tables = [getattr(record, f"{name}PaletteColorLookupTableData", b"") for name in ("Red", "Green", "Blue")]
    largest = max(np.frombuffer(table[: len(table) // 2 * 2], "<u2").max(initial=0) for table in tables)
    return 8 if largest <= 255 else 16


def _padding(stored: NDArray[Any], record: Dataset) -> NDArray[np.bool_] | None:
    """Return where grey pixels are padding (PS3.3 C.7.5.1.1.2), None where there is none."""
    if stored.ndim != 2 or record.get("PixelPaddingValue") is None:
        return None
    ends = [int(record.get(name, record.PixelPaddingValue)) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    # Some files state a negative number as an unsigned one.
    ends = [int(np.int64(end).astype(stored.dtype)) for end in ends]
    found = (stored >= min(ends)) & (stored <= max(ends))
    return found if found.any() and not found.all() else None


def _stored(record: Dataset, data: bytes) -> NDArray[Any]:
    if "PixelData" not in record:
        raise ValueError("its pixel data is missing or cut off")
    syntax = record.file_meta.TransferSyntaxUID
    bits, high = record.get("BitsStored"), record.get("HighBit")
    if not syntax.is_compressed and bits is not None and high is not None and high >= bits:
        raise UnsuitableError(
            f"stores {bits} bits a pixel of which the highest is bit {high}; allowed: bit {bits - 1}; export it again"
        )
    try:
        if syntax.is_compressed and syntax not in SAFE:
            return decode_apart(data)
        # Pillow decodes plain JPEG three times as fast as GDCM.
        return pixel_array(record, decoding_plugin="pillow" if syntax == JPEGBaseline8Bit else "")
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"its pixel data ({syntax.name}) is damaged or of no kind that can be decoded") from error


def _shown(stored: NDArray[Any], record: Dataset, bits: int, padding: NDArray[np.bool_] | None) -> Pixels:
    window = _window(record)
    if window is None and "VOILUTSequence" not in record and stored.dtype == np.uint8:
        return np.array(stored, np.uint8) if bits == 8 else _bytes(stored / (2.0**bits - 1))
    for name, neutral in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        if name in record and record.get(name) is None:
            setattr(record, name, neutral)
    values = np.asarray(apply_modality_lut(stored, record), np.float64)
    if window is not None:
        function = str(record.get("VOILUTFunction") or "LINEAR").upper()
        if function not in FUNCTIONS:
            raise ValueError(f"its VOI LUT function is {function}, where {', '.join(FUNCTIONS)} are known")
        return _bytes(FUNCTIONS[function](values, *window))
    if "VOILUTSequence" in record:
        return _bytes(_looked_up(values, record.VOILUTSequence[0]))
    known = values if padding is None else values[~padding]
    return _bytes((values - known.min()) / max(float(np.ptp(known)), 1e-12))


def _bytes(shares: Values) -> Pixels:
    return np.asarray(np.rint(np.clip(shares, 0, 1) * 255), np.uint8)


def _window(record: Dataset) -> tuple[float, float] | None:
    """Return centre and width of the first window, None where there is none or one without width."""
    if record.get("WindowCenter") is None or record.get("WindowWidth") is None:
        return None
    centre, width = (float(np.atleast_1d(record[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    exact = record.get("VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID")
    return (centre, width) if width > (0 if exact else 1) else None


FUNCTIONS: Mapping[str, Callable[[Values, float, float], Values]] = {
    "LINEAR": lambda values, centre, width: (values - (centre - 0.5)) / (width - 1) + 0.5,
    "LINEAR_EXACT": lambda values, centre, width: (values - centre) / width + 0.5,
    "SIGMOID": lambda values, centre, width: 1 / (1 + np.exp(-4 * (values - centre) / width)),
}
"""Shares of the brightest by VOI LUT function (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""


def _looked_up(values: Values, table: Dataset) -> Values:
    """Look values up in a VOI lookup table; those outside it take its first or last entry (PS3.3 C.11.2.1.1)."""
    _, first, bits = table.LUTDescriptor
    data = table.LUTData
    entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    positions = np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.int64)
    return np.asarray(entries[positions] / (2.0**bits - 1), np.float64)
