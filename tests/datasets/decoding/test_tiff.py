"""Large TIFF files are decoded in parts, with the same pixels as decoded at once."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from datasets.decoding.decode import Kind, content_hash, decode, examine_large, read
from datasets.errors import DataError
from datasets.large import LARGE_PIXELS
from tests.support.rasters import png
from tests.support.slides import mask_strip, write_tiled

HEIGHT, WIDTH = 840, 620
LAYOUTS: dict[str, dict[str, Any]] = {
    "deflate tiles": {"tile": (512, 256), "compression": "deflate", "predictor": True},
    "jpeg tiles": {"tile": (512, 512), "compression": "jpeg", "photometric": "ycbcr"},
    "lzw strips": {"rowsperstrip": 100, "compression": "lzw"},
    "one strip": {},
    "bigtiff": {"bigtiff": True, "rowsperstrip": 100},
    "big endian": {"byteorder": ">"},
}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), dtype=np.uint8)
    return np.repeat(np.repeat(small, 20, axis=0), 20, axis=1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_colours_equal_those_of_the_file_decoded_at_once(image: np.ndarray, tmp_path: Path, layout: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image, **({"photometric": "rgb"} | LAYOUTS[layout]))
    pixels = examine_large(tmp_path / "a.tif", "image", "a.tif").pixels
    assert isinstance(pixels, np.memmap)
    np.testing.assert_array_equal(pixels, decode((tmp_path / "a.tif").read_bytes(), "image", "a.tif"))


def test_large_files_are_decoded_in_parts(tmp_path: Path) -> None:
    side = 8400
    assert side**2 > LARGE_PIXELS
    strip = mask_strip(side, 0)
    pixels = read(write_tiled(tmp_path / "a.tif", strip, side), "ids")
    assert isinstance(pixels, np.memmap)
    np.testing.assert_array_equal(pixels, strip(0, side))


@pytest.mark.parametrize("kind", ["image", "ids", "foreground"])
def test_grey_values_equal_those_of_the_file_decoded_at_once(image: np.ndarray, tmp_path: Path, kind: Kind) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image[..., 0] // 100, tile=(256, 256), compression="deflate")
    expected = decode((tmp_path / "a.tif").read_bytes(), kind, "a.tif")
    np.testing.assert_array_equal(examine_large(tmp_path / "a.tif", kind, "a.tif").pixels, expected)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bits_are_scaled_by_the_range_of_the_entire_file(image: np.ndarray, tmp_path: Path, byteorder: str) -> None:
    values = image[..., 0].astype(np.uint16) * 13 + 5
    tifffile.imwrite(tmp_path / "a.tif", values.astype(f"{byteorder}u2"), byteorder=byteorder)  # type: ignore[arg-type]
    expected = decode((tmp_path / "a.tif").read_bytes(), "image", "a.tif")
    np.testing.assert_array_equal(examine_large(tmp_path / "a.tif", "image", "a.tif").pixels, expected)


def test_the_full_resolution_of_a_pyramid_is_read(image: np.ndarray, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:  # pages in the order of slide scanners
        for step, tile in ((1, (64, 64)), (20, None), (4, (64, 64))):
            file.write(np.ascontiguousarray(image[::step, ::step]), photometric="rgb", tile=tile)
        file.write(image[:10, :10], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read(tmp_path / "a.svs", "image"), image)
    np.testing.assert_array_equal(examine_large(tmp_path / "a.svs", "image", "a.svs").pixels, image)


def test_pages_of_equal_size_are_refused(image: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([image] * 2), photometric="rgb", tile=(64, 64))
    for decode_file in (lambda path: read(path, "image"), lambda path: examine_large(path, "image", path.name)):
        with pytest.raises(DataError, match=r"^a\.tif has 2 pages or frames; allowed: one"):
            decode_file(tmp_path / "a.tif")


def test_unsuitable_and_damaged_files_are_refused_with_their_name(image: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "lossy.tif", image[..., 0], tile=(256, 256), compression="jpeg")
    with pytest.raises(DataError, match=r"^lossy\.tif is compressed in a way that changes numbers; allowed: PNG"):
        examine_large(tmp_path / "lossy.tif", "ids", "lossy.tif")
    tifffile.imwrite(tmp_path / "objects.tif", image[..., 0].astype(np.uint16) + 7, tile=(256, 256))
    with pytest.raises(DataError, match=r"^objects\.tif holds the id 2\d\d; allowed: 0 to 255"):
        examine_large(tmp_path / "objects.tif", "ids", "objects.tif")
    data = (tmp_path / "objects.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"^cut\.tif cannot be decoded as image \(tile or strip \d+ is cut off\)"):
        examine_large(tmp_path / "cut.tif", "image", "cut.tif")


def test_other_formats_are_decoded_at_once_up_to_a_size(tmp_path: Path) -> None:
    mask = Image.new("L", (9_000, 20_000))
    mask.paste(7, (5, 5, 9, 9))
    mask.save(tmp_path / "mask.png", compress_level=1)
    ids = examine_large(tmp_path / "mask.png", "ids", "mask.png").pixels
    assert ids.shape == (20_000, 9_000)
    assert isinstance(ids, np.memmap)
    assert ids[5:9, 5:9].min() == ids.max() == 7
    data = png(np.zeros((2, 6), np.uint8), depth=8, kind=2)
    header = data[12:16] + struct.pack(">II", 15_000, 12_000) + data[24:29]
    (tmp_path / "a.png").write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    with pytest.raises(DataError, match=r"^a\.png has 15000 x 12000 pixels, .*; allowed: 178,956,970 .*tiled TIFF$"):
        read(tmp_path / "a.png", "image")


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    from hashlib import blake2b

    (tmp_path / "a").write_bytes(bytes(range(256)) * 9999)
    assert content_hash(tmp_path / "a") == blake2b((tmp_path / "a").read_bytes(), digest_size=16).hexdigest()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [2, 4, 7])
def test_bands_equal_those_of_the_file_decoded_at_once(dtype: type, bands: int, tmp_path: Path) -> None:
    scale = np.arange(1, bands + 1)
    small = np.random.default_rng(0).integers(0, 250 // bands, (HEIGHT // 20, WIDTH // 20, bands)) * scale
    values = np.repeat(np.repeat(small.astype(dtype), 20, axis=0), 20, axis=1)
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "tile": (256, 256)}
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    expected = decode((tmp_path / "a.tif").read_bytes(), "image", "a.tif")
    assert expected.shape == (HEIGHT, WIDTH, bands)
    np.testing.assert_array_equal(examine_large(tmp_path / "a.tif", "image", "a.tif").pixels, expected)
