"""TIFF files whose samples are bands, neither grey nor colour."""

import io

import numpy as np
import pytest
import tifffile

from datasets.decoding.decode import decode, displayed, examine, luma
from datasets.errors import DataError

RANDOM = np.random.default_rng(0)


def written(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize("bands", [2, 4, 5, 13])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib"}], ids=["strips", "tiles", "zlib"])
def test_every_band_is_a_channel(bands: int, planar: str, options: dict[str, object]) -> None:
    values = RANDOM.integers(0, 256, (40, 30, bands), dtype=np.uint8)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    data = written(stored, photometric="minisblack", planarconfig=planar, **options)
    np.testing.assert_array_equal(decode(data, "image", "a.tif"), values)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_bands_of_more_than_8_bits_are_scaled_each_over_its_range(dtype: type) -> None:
    values = np.stack([np.arange(12).reshape(3, 4), 1000 * np.arange(12).reshape(3, 4)[::-1] + 7], axis=2).astype(dtype)
    pixels = decode(written(values, photometric="minisblack", planarconfig="contig"), "image", "a.tif")
    expected = np.rint(np.arange(12).reshape(3, 4) / 11 * 255)
    np.testing.assert_array_equal(pixels[..., 0], expected)
    np.testing.assert_array_equal(pixels[..., 1], expected[::-1])


def test_samples_that_are_not_finite_become_0() -> None:
    values = np.array([[[np.nan, 1], [0, 2]], [[4, np.inf], [2, 3]]], np.float32)
    pixels = decode(written(values, photometric="minisblack", planarconfig="contig"), "image", "a.tif")
    assert pixels.tolist() == [[[0, 0], [0, 128]], [[255, 0], [128, 255]]]


@pytest.mark.parametrize(
    ("samples", "photometric", "extra", "channels"), [(4, "rgb", [2], 3), (2, "minisblack", [2], 1)]
)
def test_alpha_is_not_a_band(samples: int, photometric: str, extra: list[int], channels: int) -> None:
    values = RANDOM.integers(1, 256, (8, 9, samples), dtype=np.uint8)
    data = written(values, photometric=photometric, extrasamples=extra, planarconfig="contig")
    pixels = decode(data, "image", "a.tif")
    np.testing.assert_array_equal(pixels.reshape(8, 9, -1), values[..., :channels])
    assert not examine(data, "image", "a.tif").remark


def test_samples_besides_the_colours_are_ignored_with_a_warning() -> None:
    values = RANDOM.integers(0, 256, (8, 9, 4), dtype=np.uint8)
    decoded = examine(written(values, photometric="rgb", extrasamples=[0]), "image", "a.tif")
    np.testing.assert_array_equal(decoded.pixels, values[..., :3])
    assert decoded.remark.startswith("has 1 sample a pixel besides the colours, ignored; allowed: colours, or bands")


def test_a_damaged_file_with_bands_is_refused_in_one_line() -> None:
    data = written(
        RANDOM.integers(0, 256, (64, 64, 5), dtype=np.uint8), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(DataError, match=r"^a\.tif cannot be decoded as image \(.*\); allowed: ") as error:
        decode(data[: len(data) // 2], "image", "a.tif")
    assert "\n" not in str(error.value)


def test_masks_with_bands_are_refused() -> None:
    values = RANDOM.integers(0, 3, (8, 9, 5), dtype=np.uint8)
    with pytest.raises(DataError, match="allowed: "):
        decode(written(values, photometric="minisblack", planarconfig="contig"), "ids", "a.tif")


def test_bands_are_averaged_for_hashes_and_the_first_one_is_displayed() -> None:
    values = RANDOM.integers(0, 256, (8, 9, 5), dtype=np.uint8)
    np.testing.assert_array_equal(luma(values), np.rint(values.mean(axis=2)))
    np.testing.assert_array_equal(displayed(values), values[..., 0])
    assert displayed(values[..., :3]).shape == (8, 9, 3)


def test_samples_without_data_become_0_and_are_excluded_from_the_range() -> None:
    values = np.stack([np.linspace(0, 1, 12).reshape(3, 4)] * 2, axis=2).astype(np.float32)
    values[0, 0, 0] = -9999
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    pixels = decode(written(values, extratags=[(42113, "s", 0, "-9999", True)], **options), "image", "a.tif")
    assert pixels[0, 0, 0] == 0
    assert len(np.unique(pixels[..., 0])) == 11 + 1 - (pixels[0, 1, 0] == 0)
    np.testing.assert_array_equal(pixels[..., 1], np.rint(values[..., 1] * 255))


@pytest.mark.filterwarnings("ignore")
def test_any_damaged_header_is_refused_in_one_line_or_read() -> None:
    values = RANDOM.integers(0, 256, (16, 16, 5), dtype=np.uint8)
    data = written(values, photometric="minisblack", planarconfig="contig")
    messages = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        damaged = bytearray(data)
        for place in random.integers(2, 300, 3):
            damaged[place] = int(random.integers(256))
        messages.append(_outcome(bytes(damaged)))
    assert not any("\n" in message for message in messages)


def _outcome(data: bytes) -> str:
    """Return the error message, "" if the file can be read."""
    try:
        assert decode(data, "image", "a.tif").size
    except DataError as error:
        return str(error)
    return ""
