"""DICOM files are rendered as the standard specifies, for any stored encoding."""

import contextlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from datasets.decoding.decode import examine, read
from datasets.errors import DataError
from datasets.source import Pixels
from tests.support.dicom import write_dicom
from tests.support.pictures import picture, truncate

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
STORED = np.array([[0, 100, 200], [300, 400, 500]])


def scaled(shares: np.ndarray) -> Pixels:
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("syntax", [*PLAIN, *LOSSLESS], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (16, False), (16, True)])
def test_every_lossless_syntax_and_bit_depth_gives_the_stored_values(
    tmp_path: Path, syntax: UID, bits: int, signed: bool
) -> None:
    stored = (picture(1).astype(np.int64) - 128 * signed) * 2 ** (bits - 8)
    path = write_dicom(tmp_path / "a.dcm", stored, syntax=syntax, bits=bits, signed=signed)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    expected = stored if bits == 8 else scaled((stored - stored.min()) / np.ptp(stored))
    assert np.array_equal(read(path, "image"), expected)


def test_plain_jpeg_is_decoded_in_grey_and_colour(tmp_path: Path) -> None:
    grey, colour = picture(1), np.dstack([picture(1), picture(2), picture(3)])
    pixels = read(write_dicom(tmp_path / "a.dcm", grey, syntax=JPEGBaseline8Bit, bits=8), "image")
    assert np.abs(pixels.astype(int) - grey).max() <= 3
    pixels = read(write_dicom(tmp_path / "b.dcm", colour, syntax=JPEGBaseline8Bit, bits=8), "image")
    assert np.abs(pixels.astype(int) - colour).mean() < 5


def test_slope_intercept_and_window_are_those_of_the_standard(tmp_path: Path) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 300.5, "WindowWidth": 401}
    path = write_dicom(tmp_path / "a.dcm", STORED, **tags)
    assert np.array_equal(read(path, "image"), scaled((STORED * 2.0 - 100 - 100) / 400))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_equal_those_of_pydicom(tmp_path: Path, function: str) -> None:
    tags = {"WindowCenter": 230, "WindowWidth": 210, "VOILUTFunction": function}
    path = write_dicom(tmp_path / "a.dcm", STORED, **tags)
    expected = apply_windowing(STORED.astype(np.uint16), pydicom.dcmread(path)) / 4095
    assert np.array_equal(read(path, "image"), scaled(expected))


def test_the_first_of_several_windows_is_used(tmp_path: Path) -> None:
    single = write_dicom(tmp_path / "one.dcm", STORED, WindowCenter=300, WindowWidth=401)
    two = write_dicom(tmp_path / "two.dcm", STORED, WindowCenter=[300, 50], WindowWidth=[401, 20])
    assert np.array_equal(read(two, "image"), read(single, "image"))


def lookup_table(first: int, bits: int, entries: np.ndarray) -> pydicom.Sequence:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [len(entries), first, bits], entries.tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return pydicom.Sequence([item])


def test_a_lookup_table_is_applied_after_the_rescaling_and_a_window_takes_precedence(tmp_path: Path) -> None:
    table = lookup_table(100, 12, np.arange(400) ** 2 // 40)
    tags = {"RescaleSlope": 1, "RescaleIntercept": 50}
    path = write_dicom(tmp_path / "a.dcm", STORED, VOILUTSequence=table, **tags)
    record = pydicom.dcmread(path)
    rescaled = apply_modality_lut(STORED.astype(np.uint16), record).astype(np.int64)
    assert np.array_equal(read(path, "image"), scaled(apply_voi(rescaled, record) / 4095))
    window = {"WindowCenter": 300, "WindowWidth": 401}
    both = write_dicom(tmp_path / "b.dcm", STORED, VOILUTSequence=table, **window)
    assert np.array_equal(read(both, "image"), read(write_dicom(tmp_path / "c.dcm", STORED, **window), "image"))


def test_an_8_bit_lookup_table_does_not_wrap_larger_values(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, VOILUTSequence=lookup_table(0, 8, np.arange(512) // 2))
    assert read(path, "image").tolist() == [[0, 50, 100], [150, 200, 250]]


def test_12_bits_without_window_use_their_range_and_8_bits_are_unchanged(tmp_path: Path) -> None:
    assert read(write_dicom(tmp_path / "a.dcm", STORED), "image").tolist() == [[0, 51, 102], [153, 204, 255]]
    eight = np.array([[10, 20], [30, 200]], np.uint8)
    assert np.array_equal(read(write_dicom(tmp_path / "b.dcm", eight, bits=8), "image"), eight)


@pytest.mark.parametrize("bits", [8, 12])
def test_monochrome1_is_inverted(tmp_path: Path, bits: int) -> None:
    plain = read(write_dicom(tmp_path / "a.dcm", picture(1), bits=bits), "image")
    path = write_dicom(tmp_path / "b.dcm", picture(1), bits=bits, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read(path, "image"), 255 - plain)


def test_colour_of_16_bits_is_scaled_to_bytes(tmp_path: Path) -> None:
    colour = np.dstack([picture(1), picture(2), picture(3)])
    path = write_dicom(tmp_path / "a.dcm", colour.astype(np.uint16) * 257, bits=16)
    assert np.array_equal(read(path, "image"), colour)


def test_the_patient_and_the_pixels_are_read_at_once(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(1), bits=8, PatientID="17-b")
    decoded = examine(path.read_bytes(), "image", "a.dcm")
    assert np.array_equal(decoded.pixels, picture(1))
    assert decoded.patient == "17-b"


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("keep", [0.97, 0.5, 0.02])
@pytest.mark.parametrize("syntax", [*PLAIN, *LOSSLESS, JPEGBaseline8Bit], ids=lambda syntax: syntax.keyword)
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, syntax: UID, keep: float) -> None:
    path = write_dicom(tmp_path / "cut.dcm", picture(1, width=200, height=160), syntax=syntax, bits=8)
    truncate(path, keep=keep)
    with pytest.raises(DataError, match=r"^cut\.dcm cannot be decoded as image \(.*\); allowed: .*; .*$"):
        read(path, "image")


@pytest.mark.parametrize("syntax", [*LOSSLESS, JPEGBaseline8Bit], ids=lambda syntax: syntax.keyword)
def test_truncated_compressed_pixels_are_refused(tmp_path: Path, syntax: UID) -> None:
    path = write_dicom(tmp_path / "cut.dcm", picture(1, width=200, height=160), syntax=syntax, bits=8)
    record = pydicom.dcmread(path)
    frame = next(generate_frames(record.PixelData, number_of_frames=1))
    record.PixelData = encapsulate([frame[: len(frame) // 2]])
    record.save_as(path)
    with pytest.raises(DataError, match=rf"its pixel data \({syntax.name.split(',')[0].split('(')[0].strip()}"):
        read(path, "image")


def test_several_frames_are_refused_with_their_number(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(1, width=64, height=96), bits=8, Rows=48, NumberOfFrames=2)
    with pytest.raises(DataError, match="has 2 frames; allowed: one"):
        read(path, "image")


DAMAGES = [(837, 0xCD), *((place, 0xFF) for place in range(700, 1700, 125))]


@pytest.mark.parametrize(
    "syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless], ids=lambda syntax: syntax.keyword
)
def test_damaged_bytes_give_other_pixels_or_one_line_and_never_end_the_process(tmp_path: Path, syntax: UID) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(1).astype(np.int64) * 16, syntax=syntax, bits=12)
    content = path.read_bytes()
    for place, value in DAMAGES:
        damaged = bytearray(content)
        damaged[min(place, len(content) - 40)] = value
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert read(path, "image").ndim == 2


def test_a_stream_that_kills_its_decoder_is_reported_and_the_next_file_is_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(1).astype(np.int64) * 16, syntax=JPEGLosslessSV1, bits=12)
    data = path.read_bytes()
    marker = data.rindex(b"\xff\xda")
    deadly = [data[: marker + 1] + bytes([value]) + data[marker + 2 :] for value in (0xCD, 0xC4, 0xDD, 0xC9)]
    for number, damaged in enumerate(deadly):
        (tmp_path / f"{number}.dcm").write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be decoded as image"):
            read(tmp_path / f"{number}.dcm", "image")
    assert read(path, "image").shape == picture(1).shape


def test_colour_of_12_bits_in_16_is_not_dark(tmp_path: Path) -> None:
    stored = np.dstack([STORED, STORED * 2, STORED]) * 4
    path = write_dicom(tmp_path / "a.dcm", stored, bits=12)
    assert np.array_equal(read(path, "image"), scaled(stored / 4095))


@pytest.mark.parametrize("bits", [1, 4])
def test_less_than_8_bits_are_scaled_to_the_full_range(tmp_path: Path, bits: int) -> None:
    stored = np.arange(6).reshape(2, 3) % 2**bits
    path = write_dicom(tmp_path / "a.dcm", stored, bits=8)
    record = pydicom.dcmread(path)
    record.BitsStored, record.HighBit = bits, bits - 1
    record.save_as(path)
    assert np.array_equal(read(path, "image"), scaled(stored / (2**bits - 1)))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_excluded_from_the_range_and_is_black(tmp_path: Path, photometric: str) -> None:
    stored = STORED.copy()
    stored[0] = [4000, 4095, 3990]
    tags = {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 3990, "PhotometricInterpretation": photometric}
    path = write_dicom(tmp_path / "a.dcm", stored, **tags)
    expected = {"MONOCHROME1": [255, 127, 0], "MONOCHROME2": [0, 128, 255]}[photometric]
    assert read(path, "image").tolist() == [[0, 0, 0], expected]


@pytest.mark.parametrize("entries", [np.arange(256) * 257, np.arange(256)])
def test_palettes_of_16_bits_are_scaled_over_the_range_of_their_entries(tmp_path: Path, entries: np.ndarray) -> None:
    colours = ("Red", "Green", "Blue")
    tags = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in colours}
    tags |= {f"{name}PaletteColorLookupTableData": entries.astype("<u2").tobytes() for name in colours}
    stored = np.array([[0, 51, 255]])
    path = write_dicom(tmp_path / "a.dcm", stored, bits=8, PhotometricInterpretation="PALETTE COLOR", **tags)
    assert np.array_equal(read(path, "image")[..., 0], stored)
    few = write_dicom(tmp_path / "b.dcm", stored // 51, bits=8, PhotometricInterpretation="PALETTE COLOR", **tags)
    assert np.array_equal(read(few, "image")[..., 0], stored // 51)
