"""DICOM files of every kind in the published sets: bit depths, windows, compressed transfer syntaxes."""

from io import BytesIO
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

TRANSCODED = {
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
}


def write_dicom(
    path: Path,
    stored: NDArray[Any],
    *,
    syntax: UID = ExplicitVRLittleEndian,
    bits: int = 12,
    signed: bool = False,
    **tags: object,
) -> Path:
    """Write (height, width) grey or (height, width, 3) RGB values with `bits` stored and 8 or 16 allocated bits."""
    record = _record(stored, bits, signed=signed)
    for name, value in tags.items():
        setattr(record, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = f"<{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    record.PixelData = stored.astype(kind).tobytes()
    record["PixelData"].VR = "OB" if bits <= 8 else "OW"
    if syntax == JPEGBaseline8Bit:
        _encapsulate_jpeg(record, stored)
    elif syntax == RLELossless:
        record.compress(RLELossless)
    elif syntax not in TRANSCODED:
        record.file_meta.TransferSyntaxUID = syntax
    record.save_as(path, enforce_file_format=True)
    if syntax in TRANSCODED:
        _transcode(path, syntax)
    return path


def plane(position: float, normal: str = "axial") -> Dataset:
    """Return the functional groups of a frame at a position in mm along its normal."""
    place, orientation, frame = Dataset(), Dataset(), Dataset()
    if normal == "axial":  # rows point to the left, columns to posterior
        place.ImagePositionPatient, orientation.ImageOrientationPatient = [9, 9, position], [1, 0, 0, 0, 1, 0]
    else:  # a coronal plane rotated by 30 degrees about the left axis
        sine, cosine = 0.5, 0.75**0.5
        place.ImagePositionPatient = [9, position * cosine, position * sine]
        orientation.ImageOrientationPatient = [1, 0, 0, 0, sine, -cosine]
    frame.PlanePositionSequence = DicomSequence([place])
    frame.PlaneOrientationSequence = DicomSequence([orientation])
    return frame


def _record(stored: NDArray[Any], bits: int, *, signed: bool) -> Dataset:
    record = Dataset()
    record.file_meta = FileMetaDataset()
    record.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    record.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    record.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    record.SOPClassUID, record.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    # GDCM writes the current time and random identifiers if these are missing.
    record.StudyInstanceUID, record.SeriesInstanceUID = "1.2.3.4", "1.2.3.5"
    record.StudyDate, record.StudyTime = "20200101", "120000"
    record.Rows, record.Columns = stored.shape[:2]
    record.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    record.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        record.PlanarConfiguration = 0
    record.BitsAllocated = 8 if bits <= 8 else 16
    record.BitsStored, record.HighBit, record.PixelRepresentation = bits, bits - 1, int(signed)
    return record


def _encapsulate_jpeg(record: Dataset, stored: NDArray[Any]) -> None:
    """Encode as in the published sets: 8 bits, lossy."""
    buffer = BytesIO()
    Image.fromarray(stored.astype(np.uint8)).save(buffer, "JPEG", quality=95)
    record.PixelData = encapsulate([buffer.getvalue()])
    record["PixelData"].is_undefined_length = True
    record.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    if stored.ndim == 3:
        record.PhotometricInterpretation = "YBR_FULL_422"


def _transcode(path: Path, syntax: UID) -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(TRANSCODED[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
